/**
 * The simulator: a thousand seeds, each a fleet with its faults, in virtual time. The first half of the seeds is always the
 * same, the other half starts at a base that is printed.
 *
 * A seed that fails is printed with its faults and what is wrong. `MILLRACE_SIM_SEED=<seed>` runs that one alone, twice, and
 * prints its whole trace.
 */
import { expect, test } from 'bun:test'
import { describeFaults, runSeeds } from './simulator/batch.ts'
import { FAULT_KINDS } from './simulator/faults.ts'
import { Simulation } from './simulator/simulation.ts'

const SEEDS = Number(Bun.env['MILLRACE_SIM_SEEDS'] ?? 1000)
const STEPS_MIN = 200
const FAULTS_MIN = 5
const only = Bun.env['MILLRACE_SIM_SEED']
const base = Number(Bun.env['MILLRACE_SIM_BASE'] ?? Date.now() % 1_000_000_000)

if (only !== undefined) {
  test(`seed ${only}`, () => {
    const report = new Simulation(Number(only), { traced: true }).run()
    console.log(report.trace.join('\n'))
    console.log(`seed ${only}: ${describeFaults(report.faults)}; ${report.steps} steps, hash ${report.hash}`)
    expect(report.wrong).toEqual([])
    expect(new Simulation(Number(only)).run().hash).toBe(report.hash)
  })
} else {
  test('one seed gives one trace', () => {
    for (const seed of [1, 2, 3, base]) {
      const [first, second] = [new Simulation(seed).run(), new Simulation(seed, { traced: true }).run()]
      expect(second.trace.length).toBeGreaterThan(STEPS_MIN)
      expect({ seed, hash: second.hash, steps: second.steps }).toEqual({
        seed,
        hash: first.hash,
        steps: first.steps,
      })
    }
    expect(new Simulation(1).run().hash).not.toBe(new Simulation(2).run().hash)
  })

  test(`${SEEDS} seeds keep every promise, under every kind of fault (base ${base})`, async () => {
    const half = Math.floor(SEEDS / 2)
    const seeds = Array.from({ length: SEEDS }, (_, i) => (i < half ? i : base + i))
    const startedMs = performance.now()
    const sum = await runSeeds(seeds)
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
    console.log(
      `${sum.runs} seeds in ${seconds} s: ${sum.orders} orders, ${sum.handlerRuns} handler runs, ${sum.lost} lost with the server's writes; ${describeFaults(sum.faults)}`,
    )
    for (const { seed, wrong, faults } of sum.failed) {
      console.log(`seed ${seed} (${describeFaults(faults)}):\n  ${wrong.slice(0, 5).join('\n  ')}`)
      console.log(`  replay: MILLRACE_SIM_SEED=${seed} bun test --timeout=30000 test/simulator.test.ts`)
    }
    expect(sum.failed.map(({ seed }) => seed)).toEqual([])
    expect(sum.runs).toBe(SEEDS)
    expect(sum.stepsMin).toBeGreaterThanOrEqual(STEPS_MIN)
    expect(sum.faultsMin).toBeGreaterThanOrEqual(FAULTS_MIN)
    expect(FAULT_KINDS.filter((kind) => (sum.faults.get(kind) ?? 0) === 0)).toEqual([])
  }, 600_000)
}
