/** The ledger of a replay: what it notes survives, what was torn is forgotten, and it balances against event streams. */
import { afterAll, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Ledger } from '../scripts/fleet/ledger.ts'
import { balance } from '../scripts/replay/account.ts'
import { RedisProbe } from '../scripts/replay/probe.ts'
import { startTestRedis } from './support/redis-server.ts'

const folder = mkdtempSync(join(tmpdir(), 'millrace-ledger-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const BASE_MS = 1_700_000_000_000
const idOf = (partition: number, sequence: number) =>
  `flights.${partition}.e${BASE_MS + 5}-${sequence}.AAAAAAAAAAA`
const tokenOf = (sequence: number) => `e${BASE_MS + 5}-${sequence}`

let files = 0
const freshPath = () => join(folder, `ledger-${files++}`)

test('what was accepted is there after a reopening', () => {
  const path = freshPath()
  const first = new Ledger(path, 10, BASE_MS)
  first.accept([3, 4], [idOf(0, 1), idOf(1, 2)])
  first.close()
  const second = new Ledger(path, 10, BASE_MS)
  expect(second.acceptedCount).toBe(2)
  expect([2, 3, 4, 5].map((row) => second.isAccepted(row))).toEqual([false, true, true, false])
  expect(second.partitions().sort()).toEqual([0, 1])
  second.accept([5], [idOf(0, 3)])
  expect([...second.sortedTokens(0)]).toEqual([
    second.tokenNumber(tokenOf(1)),
    second.tokenNumber(tokenOf(3)),
  ])
  second.close()
})

test('a torn or damaged end is cut off, and what stands before it is kept', () => {
  const path = freshPath()
  const ledger = new Ledger(path, 10, BASE_MS)
  ledger.accept([0, 1, 2], [idOf(0, 1), idOf(0, 2), idOf(0, 3)])
  ledger.close()
  truncateSync(path, 40)
  const torn = new Ledger(path, 10, BASE_MS)
  expect(torn.acceptedCount).toBe(2)
  torn.close()
  writeFileSync(path, Buffer.alloc(48), { flag: 'a' })
  const zeros = new Ledger(path, 10, BASE_MS)
  expect(zeros.acceptedCount).toBe(2)
  zeros.accept([7], [idOf(0, 9)])
  zeros.close()
  const last = new Ledger(path, 10, BASE_MS)
  expect(last.acceptedCount).toBe(3)
  last.close()
})

test('a row that comes back under its own id is known, under another id it is an error', () => {
  const ledger = new Ledger(freshPath(), 10, BASE_MS)
  ledger.accept([1], [idOf(0, 1)])
  ledger.accept([1], [idOf(0, 1)])
  expect(ledger.acceptedCount).toBe(1)
  expect(() => ledger.accept([1], [idOf(0, 2)])).toThrow('accepted twice')
  expect(() => ledger.accept([2], ['nonsense'])).toThrow('command id')
  ledger.close()
})

test('the balance counts commands without event, events without command and second events', async () => {
  await using redis = await startTestRedis()
  const { client } = await redis.open()
  await client.hset('mr:stream:flights', 'partitions', 2)
  const emit = async (partition: number, ...sequences: number[]) => {
    const fields = sequences.flatMap((sequence) => [tokenOf(sequence), Buffer.from([0xff, 0x00, 0x80])])
    await client.xadd(`mr:{flights.${partition}}:e`, '*', ...fields)
  }
  const ledger = new Ledger(freshPath(), 1000, BASE_MS)
  const rows = Array.from({ length: 500 }, (_, row) => row)
  ledger.accept(
    rows,
    rows.map((row) => idOf(row % 2, row)),
  )
  const probe = await RedisProbe.open(redis.url)
  for (let at = 0; at < 500; at += 4) await emit(0, at, at + 2)
  for (let at = 1; at < 500; at += 2) await emit(1, at)
  expect(await balance(ledger, probe)).toEqual({ events: 500, lost: 0, duplicated: 0 })
  ledger.accept([600], [idOf(1, 600)])
  await emit(0, 8)
  await emit(0, 777)
  expect(await balance(ledger, probe)).toEqual({ events: 502, lost: 1, duplicated: 2 })
  probe.close()
  ledger.close()
})
