/** A thread that runs one seed after another and tells how each ended. */
import { describeError } from '../../src/contracts/errors.ts'
import type { SeedReport } from './batch.ts'
import { Simulation } from './simulation.ts'

declare const self: {
  onmessage: ((event: { data: number }) => void) | null
  postMessage(value: SeedReport): void
}

function run(seed: number): SeedReport {
  try {
    const { wrong, steps, faults, orders, handlerRuns, lost } = new Simulation(seed).run()
    return { seed, wrong, steps, faults, orders, handlerRuns, lost }
  } catch (error) {
    const wrong = [`the run broke off: ${describeError(error)}`]
    return { seed, wrong, steps: 0, faults: new Map(), orders: 0, handlerRuns: 0, lost: 0 }
  }
}

self.onmessage = ({ data }) => self.postMessage(run(data))
