/** Order and single effects while answers of every script that moves a lease or settles are lost, delayed or never sent. */
import { expect, test } from 'bun:test'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import type { ScriptName } from '../src/redis/scripts.ts'
import type { Consumer } from '../src/runtime/consumer.ts'
import { doStep, orderViolations, parseLedger, Step, Stepped, steps } from './fixtures/ordered/ordered.ts'
import { FlakyLink } from './support/flaky-link.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const KEYS = Array.from({ length: 4 }, (_, partition) => partitionKeys('steps', partition, 'key'))
const FLAKY: readonly ScriptName[] = [
  ...(['settle', 'take-partition', 'release-partition', 'ask-partition', 'charge-suspects'] as const),
  ...(['trim-commands', 'promote', 'mark-running', 'forget-member'] as const),
]

test('workers come and go, answers are lost: each key goes step by step, and nothing is left behind', async () => {
  const seed = Number(Bun.env['ORDER_SEED'] ?? Math.floor(Math.random() * 1e6))
  console.info(`order under lost answers: ORDER_SEED=${seed}`)
  await using redis = await startTestRedis()
  const folder = mkdtempSync(join(tmpdir(), 'millrace-ordered-'))
  const ledger = join(folder, 'ledger')
  appendFileSync(ledger, '')
  Bun.env['ORDERED_LEDGER'] = ledger
  let born = 0
  const workers: Consumer[] = []
  try {
    const fleet = await testFleet(redis, [steps, Step, Stepped, doStep])
    const { options } = redis.links
    const add = async () => {
      born += 1
      const link = new FlakyLink(options, seed + born, FLAKY)
      await link.whenReady(10_000)
      workers.push(await fleet.worker({ lookEveryMs: 60, heartbeatEveryMs: 60, trimEveryMs: 20 }, link))
    }
    const payloads = Array.from({ length: 40 * 30 }, (_, i) => ({ key: `k${i % 30}`, n: Math.floor(i / 30) }))
    const feed = (async () => {
      for (let from = 0; from < payloads.length; from += 60) {
        await fleet.append(Step, payloads.slice(from, from + 60))
        await Bun.sleep(60)
      }
    })()
    await add()
    for (const size of [3, 1, 4, 2, 1, 3]) {
      while (workers.length < size) await add()
      while (workers.length > size) await workers.shift()?.stop()
      await Bun.sleep(300)
    }
    await feed
    const counts = async () => {
      const seen = new Map<string, number>()
      for (const { partition } of KEYS) {
        for (const { entry } of await fleet.events('steps', partition)) {
          const { key, n } = unpackPayloadOf(entry) as { key: string; n: number }
          seen.set(`${key} ${n}`, (seen.get(`${key} ${n}`) ?? 0) + 1)
        }
      }
      return seen
    }
    await until('all to be done', async () => (await counts()).size === payloads.length, 40_000)
    expect([...(await counts()).values()].every((count) => count === 1)).toBe(true)
    const calls = parseLedger(readFileSync(ledger, 'utf8'))
    expect(orderViolations(calls)).toEqual([])
    const failures = (n: number): number => (n % 7 === 3 ? 2 : n % 5 === 2 ? 1 : 0)
    // Unless this machine was so slow that a living worker looked dead.
    if (fleet.telemetry.of('partition.lost').length === 0)
      expect(calls).toHaveLength(payloads.reduce((sum, { n }) => sum + 1 + failures(n), 0))
    const { client } = fleet.link
    for (const keys of KEYS) {
      await until(
        'nothing to be left',
        async () => (await client.exists(keys.held, keys.crashes, keys.due, keys.records)) === 0,
      )
      const groups = (await client.xinfo('GROUPS', keys.commands)) as unknown[][]
      expect(groups).toHaveLength(1)
    }
    expect((await client.keys('*running*')).length).toBe(0)
  } finally {
    delete Bun.env['ORDERED_LEDGER']
    await Promise.all(workers.map((worker) => worker.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
}, 90_000)
