/** Many dead letters at once: redriven or discarded by filter, at a rate, through stops and restarts, against a real Redis. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { partitionKeys } from '../src/redis/keys.ts'
import { Bill, codeOf, ended, Graveyard, Note, numbers, walk } from './support/dead-letters.ts'
import type { Appended } from './support/fleet.ts'
import { until } from './support/until.ts'

let yard: Graveyard
beforeEach(async () => {
  yard = await Graveyard.open()
})
afterEach(async () => {
  await yard[Symbol.asyncDispose]()
})

async function deadNotes(count: number): Promise<Appended[]> {
  const appended = await yard.fleet.append(Note, numbers(count))
  await yard.work(count)
  yard.mood.runs = []
  return appended
}

test('1,000 are redriven at the wanted rate; all are done, and each ran once', async () => {
  const appended = await deadNotes(1000)
  yard.mood.fails = false
  const letters = yard.letters()
  await using _worker = await yard.fleet.worker()
  const startedMs = performance.now()
  const started = letters.redriveAll({ stream: 'notes' }, { ratePerSecond: 800 })
  expect(started).toMatchObject({ kind: 'redrive', state: 'running', dryRun: false })
  const operation = await ended(letters, started)
  const tookMs = performance.now() - startedMs
  expect(operation).toMatchObject({ state: 'finished', matched: 1000, done: 1000, failed: 0 })
  expect(tookMs).toBeGreaterThan(1150)
  expect(tookMs).toBeLessThan(5000)
  await yard.untilSettled(2000)
  expect(yard.mood.runs).toHaveLength(1000)
  expect(new Set(yard.mood.runs.map(({ payload }) => (payload as { n: number }).n)).size).toBe(1000)
  expect((await letters.page()).data).toEqual([])
  for (const at of appended.slice(0, 20)) expect((await yard.fleet.status(at)).state).toBe('done')
})

test('what dies again meanwhile is met only once', async () => {
  await deadNotes(300)
  const letters = yard.letters()
  await using _worker = await yard.fleet.worker()
  const operation = await ended(letters, letters.redriveAll({}, { ratePerSecond: 1000 }))
  expect(operation).toMatchObject({ matched: 300, done: 300, failed: 0 })
  await yard.untilSettled(600)
  expect(yard.mood.runs).toHaveLength(300)
  expect((await walk(letters, {}, 500)).all).toHaveLength(300)
})

test('a dry run counts and touches nothing; a purge deletes what the filter means and no more', async () => {
  await yard.fleet.append(Bill, numbers(30))
  const [note] = await yard.fleet.append(Note, numbers(20))
  await yard.work(50)
  const letters = yard.letters()
  const dry = await ended(letters, letters.purgeAll({ type: 'note.write' }, { dryRun: true }))
  expect(dry).toMatchObject({ kind: 'purge', dryRun: true, matched: 20, done: 0, failed: 0 })
  expect((await letters.page({}, { limit: 100 })).data).toHaveLength(50)
  const purge = await ended(letters, letters.purgeAll({ type: 'note.write' }))
  expect(purge).toMatchObject({ state: 'finished', matched: 20, done: 20, failed: 0 })
  const rest = (await letters.page({}, { limit: 100 })).data
  expect(rest.map(({ type }) => type)).toEqual(Array(30).fill('order.bill'))
  expect((await yard.fleet.status(note as Appended)).state).toBe('dead')
})

test('two at once share the work: nothing is redriven twice', async () => {
  await deadNotes(400)
  yard.mood.fails = false
  const letters = yard.letters()
  const plans = [1, 2].map(() => letters.redriveAll({}, { ratePerSecond: 10_000 }))
  const [one, two] = await Promise.all(plans.map((operation) => ended(letters, operation)))
  expect((one?.done ?? 0) + (two?.done ?? 0)).toBe(400)
  await yard.work(400)
  expect(yard.mood.runs).toHaveLength(400)
})

test('a stop of the process ends them, and what is left is there for the next one', async () => {
  await deadNotes(200)
  const letters = yard.letters()
  await letters.start()
  const { id } = letters.redriveAll({}, { ratePerSecond: 40 })
  await until('some to be redriven', () => letters.operation(id).done > 0)
  await letters.stop()
  const operation = letters.operation(id)
  expect(operation.state).toBe('stopped')
  expect(operation.endedAtMs).toBeNumber()
  expect(await codeOf(() => letters.redriveAll({}))).toBe('service.stopped')
  expect((await walk(yard.letters(), {}, 500)).all).toHaveLength(200 - operation.done)
})

test('they outlive a restart of Redis', async () => {
  await deadNotes(300)
  const letters = yard.letters()
  const { id } = letters.redriveAll({}, { ratePerSecond: 300 })
  await until('some to be redriven', () => letters.operation(id).done > 20)
  await yard.redis.kill()
  await yard.redis.restart()
  const operation = await ended(letters, letters.operation(id))
  expect(operation).toMatchObject({ state: 'finished', failed: 0 })
  const { client } = await yard.redis.open()
  expect(await client.xlen(partitionKeys('notes', 0).ready)).toBe(300)
  expect((await yard.letters().page()).data).toEqual([])
})

test('they are bounded in number, and the oldest ended ones are forgotten', async () => {
  await deadNotes(60)
  const letters = yard.letters({ operationsRunningMax: 2, operationsRememberedMax: 3 })
  await letters.start()
  const slow = letters.redriveAll({}, { ratePerSecond: 1 })
  const first = await ended(letters, letters.purgeAll({}, { dryRun: true }))
  for (let n = 0; n < 3; n++) await ended(letters, letters.purgeAll({}, { dryRun: true }))
  expect(await codeOf(() => letters.operation(first.id))).toBe('not-found')
  expect(letters.operation(slow.id).state).toBe('running')
  letters.redriveAll({}, { ratePerSecond: 1 })
  expect(await codeOf(() => letters.redriveAll({}))).toBe('admission.overloaded')
  expect(await codeOf(() => letters.redriveAll({}, { ratePerSecond: 0 }))).toBe('command.malformed')
  expect(await codeOf(() => letters.purgeAll({ stream: 'nots' }))).toBe('not-found')
  await letters.stop()
})
