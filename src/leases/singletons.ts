/** All singletons of a worker process: each with a lease of its own, stopped together. */
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import type { SingletonDefinition } from '../contracts/singleton.ts'
import { Service } from '../runtime/service.ts'
import { LeasedRun, type LeasedRunParts } from './leased-run.ts'

export interface SingletonsParts extends LeasedRunParts {
  readonly singletons: ReadonlyMap<string, SingletonDefinition>
}

export class Singletons extends Service implements HealthSource {
  readonly #runs: readonly LeasedRun[]

  constructor({ singletons, ...parts }: SingletonsParts) {
    super('singletons')
    this.#runs = [...singletons.values()].map((singleton) => new LeasedRun(parts, singleton))
  }

  /** Waiting for a lease is no illness: somebody else does the work. */
  health(): HealthReport {
    if (this.state !== 'running') return { ready: false, detail: `Singletons are ${this.state}.` }
    const here = this.#runs.filter((run) => run.running).length
    return { ready: true, detail: `${here} of ${this.#runs.length} singletons run here.` }
  }

  protected override async onStart(): Promise<void> {
    for (const run of this.#runs) await run.start()
  }

  protected override async onStop(): Promise<void> {
    await Promise.all(this.#runs.map((run) => run.stop()))
  }
}
