/**
 * Consuming, measured the same way in every scenario: a backlog lies ready on a server of its own, workers or a baseline in
 * their place get through it, and the consumer group is watched from outside.
 */
import type { RedisServer } from '../fleet/redis-server.ts'
import { Backlog } from './backlog.ts'
import type { Contestant } from './duel.ts'
import { watchUntilDone } from './group-watch.ts'
import type { NamedProcesses } from './processor-time.ts'
import type { Measure } from './scenario.ts'
import type { Stage } from './stage.ts'
import { watchSteadily } from './steady-backlog.ts'

/** What the modules of `app/` that consume call their stream and their command. */
const STREAM = 'lines'
export const TYPE = 'line.add'

/**
 * Commands that a worker may have in hand here: two reads of a thousand on their way, one being handled, and three being settled:
 * with 4,000 a read waits for a settlement again and again. The default of 1,000 suits handlers that take their time.
 */
export const IN_FLIGHT_MAX = 6000
export const ROOMY: readonly string[] = ['--in-flight-max', String(IN_FLIGHT_MAX)]

export interface ConsumingOptions {
  /** Folder in `app/`; it declares the stream and the command above. */
  readonly app: string
  readonly commands: number
  /** Default 1. */
  readonly partitions?: number
  /** Different customers in the payloads. */
  readonly keys?: number
}

export interface WorkersOptions {
  readonly name?: string
  /** Default 1. */
  readonly processes?: number
  readonly flags?: readonly string[]
  /** Commands done by all of them when the measurement starts, and when it ends; default from a tenth of the backlog to all. */
  readonly window?: Window
}

export interface Window {
  readonly from: number
  readonly to: number
}

export interface PlainOptions {
  readonly name: string
  /** Entries of one read. */
  readonly count: number
  /** True: an event for each command. */
  readonly emits?: boolean
  readonly input?: object
}

export class Consuming {
  readonly redis: RedisServer
  readonly #stage: Stage
  readonly #options: ConsumingOptions
  readonly #backlog: Backlog

  private constructor(stage: Stage, redis: RedisServer, options: ConsumingOptions, backlog: Backlog) {
    this.#stage = stage
    this.redis = redis
    this.#options = options
    this.#backlog = backlog
  }

  static async prepare(stage: Stage, options: ConsumingOptions): Promise<Consuming> {
    const redis = await stage.redis()
    stage.tell(`posting ${options.commands} commands`)
    const common = { redis, type: TYPE, stream: STREAM, partitions: 1 }
    return new Consuming(stage, redis, options, await Backlog.fill(stage, { ...common, ...options }))
  }

  get #streams(): string[] {
    const { partitions = 1 } = this.#options
    return Array.from({ length: partitions }, (_, partition) => commandsKey(partition))
  }

  /** Worker processes of the product. */
  workers(options: WorkersOptions = {}): Contestant {
    const { name = 'millrace', processes = 1, flags = [], window } = options
    const { redis } = this
    const stage = this.#stage
    return {
      name,
      play: async () => {
        await this.#backlog.restore()
        const start = () => stage.role('work', { redis, app: this.#options.app, flags })
        const workers = await Promise.all(Array.from({ length: processes }, start))
        const named = workers.map(({ pid }, i) => [processes === 1 ? 'worker' : `worker ${i + 1}`, pid])
        const measure = await this.#watch(Object.fromEntries(named), window)
        await Promise.all(workers.map((worker) => stage.end(worker)))
        return measure
      },
    }
  }

  /** One process that reads the first partition with nothing around it. */
  plain({ name, count, emits = false, input = {} }: PlainOptions): Contestant {
    const { redis } = this
    const stage = this.#stage
    return {
      name,
      play: async () => {
        await this.#backlog.restore()
        const common = { url: redis.url, stream: commandsKey(0), group: 'plain', count }
        const events = emits ? { emit: eventsKey(0) } : {}
        const plain = stage.subject('plain-consumer', { ...common, ...events, ...input })
        await plain.ready()
        const measure = await this.#watch({ worker: plain.pid })
        await stage.end(plain)
        return measure
      },
    }
  }

  /** One worker process, for a while, before a backlog that stays as long as it is. It reads one partition. */
  steadyWorker(name: string): Contestant {
    const { redis } = this
    const stage = this.#stage
    return {
      name,
      play: async () => {
        await this.#backlog.restore()
        const worker = await stage.role('work', { redis, app: this.#options.app })
        const client = stage.client(redis)
        const measure = await watchSteadily({
          ...{ client, stream: commandsKey(0), seconds: stage.seconds, worker: worker.pid },
          ...{ processes: { redis: redis.pid, worker: worker.pid }, signal: stage.signal },
        })
        client.disconnect()
        await stage.end(worker)
        return measure
      },
    }
  }

  async #watch(workers: NamedProcesses, window?: Window): Promise<Measure> {
    const client = this.#stage.client(this.redis)
    const commands = window?.to ?? this.#backlog.commands
    try {
      return await watchUntilDone({
        ...{ client, streams: this.#streams, signal: this.#stage.signal },
        commands,
        processes: { redis: this.redis.pid, ...workers },
        ...(window === undefined ? {} : { warmShare: window.from / commands }),
      })
    } finally {
      client.disconnect()
    }
  }
}

/** Where the commands of a partition lie. */
export function commandsKey(partition: number): string {
  return `mr:{${STREAM}.${partition}}:c`
}

/** Where the events of a partition lie. */
function eventsKey(partition: number): string {
  return `mr:{${STREAM}.${partition}}:e`
}
