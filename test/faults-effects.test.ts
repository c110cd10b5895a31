/** What the fault harness counts in Redis: lost, doubled, dead and undelivered are found where they are planted. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { collectEffects } from '../scripts/faults/effects.ts'
import { RedisProbe } from '../scripts/faults/probe.ts'
import { Workload } from '../scripts/faults/workload.ts'
import { freePorts } from '../scripts/fleet/free-ports.ts'
import { Ledger } from '../scripts/fleet/ledger.ts'
import { RedisServer } from '../scripts/fleet/redis-server.ts'
import { EMPTY_TRAIL, encodeEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { packPayload } from '../src/redis/payload-codec.ts'

const folder = mkdtempSync(join(tmpdir(), 'millrace-effects-'))
const BASE_MS = Date.now() - 1000
const places = [{ stream: 'steps', partition: 0 }]
const keys = partitionKeys('steps', 0)
let redis: RedisServer
let probe: RedisProbe

beforeAll(async () => {
  const [port = 0] = await freePorts(1)
  redis = new RedisServer({ folder, port, fsync: 'everysec', signal: new AbortController().signal })
  await redis.start()
  probe = new RedisProbe(() => redis.url)
})
afterAll(async () => {
  probe.close()
  await redis.end()
  rmSync(folder, { recursive: true, force: true })
})

/** The bytes of an event or a dead letter, as the product writes them. */
async function plant(key: string, token: string, type: string, row: number, error?: string): Promise<void> {
  const trail = { ...EMPTY_TRAIL, attempts: 3, failures: [{ attempt: 3, atMs: 1, error: error ?? '' }] }
  const envelope = { type, version: 1, atMs: 1, key: 'key-1', trace: undefined, tickMs: undefined }
  const blob = encodeEntry(
    { ...envelope, trail: error === undefined ? undefined : trail },
    packPayload({ n: row, k: row, s: 0 }),
  )
  await using client = await rawClient()
  await client.xadd(key, '*', token, blob)
}

async function rawClient() {
  const client = new Redis(redis.url, { protocol: 2 })
  return Object.assign(client, {
    [Symbol.asyncDispose]: async () => {
      client.disconnect()
    },
  })
}

const tokenOf = (row: number): string => `e${BASE_MS + 10}-${row}`

test('events and dead letters are held against what was accepted', async () => {
  const rows = 6
  const ledger = new Ledger(join(folder, 'ledger'), rows, BASE_MS)
  const accepted = [0, 1, 2, 3, 4]
  ledger.accept(
    accepted,
    accepted.map((row) => `steps.0.${tokenOf(row)}`),
  )
  const typeOf = (row: number): string => (row === 0 ? 'step.split' : 'step.plain')
  const workload = new Workload({ rows, keys: 6, bodyRows: 2, typeOf })
  await plant(keys.events, tokenOf(0), 'step.done', 0)
  await plant(keys.events, tokenOf(1), 'step.done', 1)
  // Row 1 once more; row 2 by an entry that nobody was told of; row 3 is dead; row 4 is gone; row 5 was never accepted.
  await plant(keys.events, tokenOf(1), 'step.done', 1)
  await plant(keys.events, `e${BASE_MS + 99}-0`, 'step.done', 2)
  await plant(keys.dead, tokenOf(3), 'step.plain', 3, 'It was running when its worker died, 3 times.')
  const effects = await collectEffects({ probe, places, ledger, workload })
  expect(effects).toMatchObject({ events: 4, done: 3, duplicates: 2, lostRows: [4], lostEchoes: 1 })
  expect(effects.dead).toEqual([
    { token: tokenOf(3), type: 'step.plain', row: 3, error: 'It was running when its worker died, 3 times.' },
  ])
  expect(effects.views.get('step-keys')?.get('key-1')).toEqual({ count: 2, rows: 2 })
  ledger.close()
})

test('what waits, what is pending and who is silent is seen', async () => {
  await using client = await rawClient()
  await client.xadd(keys.commands, '*', '-', 'one')
  await client.xadd(keys.commands, '*', '-', 'two')
  await client.xgroup('CREATE', keys.commands, 'workers', '0')
  await client.xreadgroup('GROUP', 'workers', 'w1', 'COUNT', 1, 'STREAMS', keys.commands, '>')
  await client.hset(keys.beats, 'w1', '7:7', 'w2', '1:1')
  const open = await probe.openWork(places)
  expect(open).toMatchObject({ undelivered: 1, pending: 1, due: 0, outbox: 0, logged: 2 })
  expect(open.consumers.toSorted((a, b) => a.name.localeCompare(b.name))).toEqual([
    { name: 'w1', pending: 1, beat: '7:7' },
    { name: 'w2', pending: 0, beat: '1:1' },
  ])
  expect(await probe.held({ stream: 'steps', partition: 0 }, 'w1')).toHaveLength(1)
  const beating = setInterval(() => void client.hincrby(keys.beats, 'alive', 1), 50)
  await client.hset(keys.beats, 'alive', 1)
  expect((await probe.leakedConsumers(places)).toSorted()).toEqual(['w1', 'w2'])
  clearInterval(beating)
})

test('projections are behind until they have read the last event', async () => {
  await using client = await rawClient()
  const [newest] = await client.xrevrange(keys.events, '+', '-', 'COUNT', 1)
  const last = newest?.[0] ?? ''
  expect(await probe.caughtUp(places)).toBe(false)
  await client.hset(keys.readers, 'step-keys@1', '1-1')
  expect(await probe.caughtUp(places)).toBe(false)
  await client.hset(keys.readers, 'step-keys@1', last)
  expect(await probe.caughtUp(places)).toBe(true)
})
