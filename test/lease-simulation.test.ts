/** The real holder and contender in virtual time, under hundreds of faults a run: never two holders, and always one in the end. */
import { expect, test } from 'bun:test'
import { FAULTS, type Fault, LeaseWorld } from './support/lease-world.ts'

const TAKEOVER_MS = 1000
const RUNS = 40
const STEPS = 6000

test('nobody acts under a lease that another may hold; epochs rise; in calm somebody has it', async () => {
  const base = Number(Bun.env['MILLRACE_SEED'] ?? Date.now() % 1_000_000)
  const fired = new Map<Fault, number>()
  let takes = 0
  for (let run = 0; run < RUNS; run++) {
    const seed = base + run
    const world = new LeaseWorld(seed, TAKEOVER_MS)
    expect([`seed ${seed}`, ...(await world.run(STEPS))]).toEqual([`seed ${seed}`])
    const calm = await world.calm(10 * TAKEOVER_MS)
    world.end()
    expect([`seed ${seed}`, calm]).toEqual([`seed ${seed}`, true])
    for (const [fault, count] of world.fired) fired.set(fault, (fired.get(fault) ?? 0) + count)
    takes += world.epochs.length
  }
  console.log(
    `lease simulation: seeds from ${base}, ${takes} takes, ${JSON.stringify(Object.fromEntries(fired))}`,
  )
  for (const fault of FAULTS) expect([fault, (fired.get(fault) ?? 0) > 0]).toEqual([fault, true])
  expect(takes).toBeGreaterThan(RUNS * 5)
}, 60_000)
