/**
 * The in-memory Redis of the simulator against a real server: the same random steps on both, answers and states equal after
 * each. So what the simulator finds is true of Redis, and what it does not find is not hidden by the model.
 */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import fc from 'fast-check'
import { readServerTime } from '../src/redis/schedule-store.ts'
import { SCRIPTS } from '../src/redis/scripts.ts'
import { STORIES, tellMemory, tellServer } from './simulator/blocked-reads.ts'
import { ComparedSide, memoryLink } from './simulator/compared-side.ts'
import { compileLua } from './simulator/lua-compiler.ts'
import { MemoryRedis } from './simulator/memory-redis.ts'
import { bareCommands, type Step, steps } from './simulator/model-steps.ts'
import { startTestRedis } from './support/redis-server.ts'

// A node of a stream holds one entry, so that trimming with ~ is exact; small hashes keep their order.
const redis = await startTestRedis(['--stream-node-max-entries', '1', '--appendonly', 'no'])
setDefaultTimeout(120_000)
afterAll(() => redis[Symbol.asyncDispose]())
const seed = Number(Bun.env['MILLRACE_TEST_SEED'] ?? Date.now() % 1_000_000)

async function compare(list: readonly Step[]): Promise<void> {
  const link = await redis.open()
  try {
    await link.client.flushall()
    const startMs = await readServerTime(link)
    let nowMs = startMs
    const model = new MemoryRedis(() => nowMs)
    const [real, memory] = [new ComparedSide(link, startMs), new ComparedSide(memoryLink(model), startMs)]
    for (const step of list) {
      nowMs = await readServerTime(link)
      const answer = await real.answer(() => step.run(real))
      const state = await real.state()
      for (const [key, ids] of real.takeNewIds()) model.givenIds.set(key, ids)
      const modelled = await memory.answer(() => step.run(memory))
      expect({ step: step.name, answer: modelled }).toEqual({ step: step.name, answer })
      expect({ step: step.name, state: await memory.state() }).toEqual({ step: step.name, state })
      model.givenIds.clear()
    }
  } finally {
    redis.links.close(link)
  }
}

const described = (arbitrary: fc.Arbitrary<Step>, maxLength: number) =>
  fc.array(
    arbitrary.map((each) => ({ ...each, [fc.toStringMethod]: () => each.name })),
    { maxLength, size: 'max' },
  )

test(`stream commands answer and leave what Redis does (seed ${seed})`, async () => {
  await fc.assert(fc.asyncProperty(described(bareCommands, 40), compare), { numRuns: 100, seed })
})

test(`every script of the product answers and leaves what it does on Redis (seed ${seed})`, async () => {
  await fc.assert(fc.asyncProperty(described(steps, 45), compare), { numRuns: 100, seed })
})

test.each(Object.entries(STORIES))('%s', async (_, story) => {
  const link = await redis.open()
  await link.client.flushall()
  const told = await tellServer(() => redis.open(), story)
  redis.links.close(link)
  const idle = (tale: unknown): unknown => JSON.parse(JSON.stringify(tale).replace(/"idle",\d+/g, '"idle",0'))
  const pause = (tale: unknown): unknown =>
    JSON.parse(JSON.stringify(tale).replace(/("c\d"),\d+,(\d+)\]/g, '$1,0,$2]'))
  expect(pause(idle(tellMemory(new MemoryRedis(() => 1000), story)))).toEqual(pause(idle(told)))
})

test('every script of the product can be run by the simulator', () => {
  const names = Object.keys(SCRIPTS)
  expect(names.length).toBeGreaterThan(30)
  for (const [name, { source }] of Object.entries(SCRIPTS))
    expect(typeof compileLua(name, source)).toBe('function')
})

test('what the compiler does not know is refused by name', () => {
  expect(() => compileLua('x', 'return string.dump(1)')).toThrow('"string.dump"')
  expect(() => compileLua('x', 'counter = 1')).toThrow('setting the global "counter"')
  expect(() => compileLua('x', 'return cjson.encode({})')).toThrow('"cjson.encode"')
  const model = new MemoryRedis(() => 0)
  expect(() => model.execute(undefined, ['LPUSH', 'list', 'x'])).toThrow('does not know LPUSH')
})
