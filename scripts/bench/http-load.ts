/** Loads an HTTP server with a process of its own (`subjects/http-load.ts`) and tells how many requests a second it answered. */
import { RunError } from '../fleet/failure.ts'
import type { NamedProcesses } from './processor-time.ts'
import type { Measure } from './scenario.ts'
import type { Stage } from './stage.ts'

export type LoadRequest =
  | { readonly kind: 'single'; readonly type: string }
  | { readonly kind: 'bulk'; readonly type: string; readonly count: number }
  | { readonly kind: 'get'; readonly path: string }

export interface HttpLoadInput {
  readonly port: number
  readonly connections: number
  readonly warmMs: number
  readonly measureMs: number
  readonly request: LoadRequest
  /** Order lines are numbered from here on: no two that are ever sent are alike. */
  readonly firstNumber: number
  readonly processes: NamedProcesses
}

export interface HttpLoadResult {
  readonly elapsedS: number
  readonly statuses: Readonly<Record<string, number>>
  /** Connections that the server closed. */
  readonly closed: number
  readonly nextNumber: number
  readonly cores: Readonly<Record<string, number>>
}

/** Compilers need some time; and the first round of each process is no worse than the others. */
const WARM_MS = { full: 1000, quick: 500 }

export interface LoadOptions {
  readonly url: string
  readonly connections: number
  readonly request: LoadRequest
  readonly processes: NamedProcesses
  /** The only status that counts. */
  readonly status: number
}

export class HttpLoad {
  readonly #stage: Stage
  #number = 0

  constructor(stage: Stage) {
    this.#stage = stage
  }

  /** Requests a second. @throws RunError when anything else than the expected status came */
  async measure({ url, connections, request, processes, status }: LoadOptions): Promise<Measure> {
    const { quick, seconds } = this.#stage
    const load = this.#stage.subject('http-load', {
      port: Number(new URL(url).port),
      connections,
      warmMs: quick ? WARM_MS.quick : WARM_MS.full,
      measureMs: seconds * 1000 * (quick ? 0.5 : 1),
      request,
      firstNumber: this.#number,
      processes,
    } satisfies HttpLoadInput)
    const result = await load.result<HttpLoadResult>()
    await this.#stage.end(load)
    const { statuses, closed, elapsedS, cores, nextNumber } = result
    this.#number = nextNumber
    const answered = statuses[status] ?? 0
    const total = Object.values(statuses).reduce((sum, count) => sum + count, 0)
    if (answered !== total || closed > 0 || answered === 0) {
      const told = JSON.stringify(statuses)
      throw new RunError(
        'failed',
        `Answers by status: ${told}, ${closed} connections closed; all had to be ${status}.`,
      )
    }
    return { value: answered / elapsedS, cores }
  }
}
