/**
 * Against BullMQ: the same Redis, the same payload, the same number of callers. BullMQ runs on Bun and on Node, one after the
 * other in each round, and the better of the two counts; its settings are those that were best of what its documentation offers.
 */
import { join } from 'node:path'
import { RunError } from '../../fleet/failure.ts'
import type { RedisServer } from '../../fleet/redis-server.ts'
import { Backlog } from '../backlog.ts'
import { IN_FLIGHT_MAX, ROOMY } from '../consuming.ts'
import { type Contestant, duel } from '../duel.ts'
import { watchUntilDone } from '../group-watch.ts'
import { orderLine } from '../payload.ts'
import { watchProgress } from '../progress-watch.ts'
import type { Measure, Row, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import type { Subject } from '../subject.ts'

const STREAM = 'mr:{lines.0}:c'
const QUEUE = 'lines'
const WAITING = `bull:${QUEUE}:wait`
const ACTIVE = `bull:${QUEUE}:active`
/** They travel as an argument, which is bounded. */
const DATA = Array.from({ length: 200 }, (_, n) => orderLine(n))

/** Both sides: chunks of so many, so many at once. */
const BULK = { chunk: 500, callers: 4 }
const ONE_BY_ONE = { callers: 512 }
/** BullMQ's own. */
const WORKERS = { workers: 1, worker: { concurrency: 300 } }

type Amounts = { readonly millrace: number; readonly bullmq: number }

export const vsBullmq: Scenario = {
  name: 'vs-bullmq',
  summary: 'BullMQ: adding in bulk, adding one by one, working on a backlog',
  needsPeers: true,
  async play(stage) {
    const bout = await Bout.prepare(stage)
    return [await bout.addBulk(), await bout.add(), await bout.process()]
  },
}

class Bout {
  readonly #stage: Stage
  readonly #redis: RedisServer
  readonly #folder: string
  readonly #setting: Row['setting']
  readonly #client: ReturnType<Stage['client']>
  readonly #runtimes: readonly { readonly name: string; readonly program: string }[]

  private constructor(stage: Stage, redis: RedisServer, folder: string, version: string) {
    const node = Bun.which('node')
    this.#stage = stage
    this.#redis = redis
    this.#folder = folder
    this.#client = stage.client(redis)
    this.#runtimes = [
      { name: 'Bun', program: process.execPath },
      ...(node === null ? [] : [{ name: 'Node', program: node }]),
    ]
    const nodeVersion = node === null ? 'none' : Bun.spawnSync([node, '--version']).stdout.toString().trim()
    this.#setting = { bullmq: version, node: nodeVersion, counts: 'the better of BullMQ on Bun and on Node' }
  }

  static async prepare(stage: Stage): Promise<Bout> {
    const folder = stage.peersFolder
    if (folder === undefined) throw new RunError('usage', 'vs-bullmq needs --with-peers.')
    const { version } = (await Bun.file(join(folder, 'node_modules/bullmq/package.json')).json()) as {
      version: string
    }
    return new Bout(stage, await stage.redis(), folder, version)
  }

  async addBulk(): Promise<Row> {
    const goals = this.#amounts({ millrace: 1_000_000, bullmq: 150_000 })
    return await duel(this.#stage, {
      name: 'vs-bullmq-add-bulk',
      unit: 'commands/s',
      millrace: this.#producer(goals.millrace, BULK),
      baseline: this.#better((program) =>
        this.#grow(WAITING, goals.bullmq, () => this.#bullmq(program, { role: 'add-bulk', ...BULK })),
      ),
      budget: { of: 'ratio', is: 'at least', bound: 10 },
      rounds: { full: 3, quick: 1 },
      setting: { ...this.#setting, ...BULK, millrace: 'sendMany in process', bullmqCall: 'Queue.addBulk' },
    })
  }

  async add(): Promise<Row> {
    const goals = this.#amounts({ millrace: 600_000, bullmq: 100_000 })
    return await duel(this.#stage, {
      name: 'vs-bullmq-add',
      unit: 'commands/s',
      millrace: this.#producer(goals.millrace, ONE_BY_ONE),
      baseline: this.#better((program) =>
        this.#grow(WAITING, goals.bullmq, () => this.#bullmq(program, { role: 'add', ...ONE_BY_ONE })),
      ),
      budget: { of: 'ratio', is: 'at least', bound: 2 },
      rounds: { full: 3, quick: 1 },
      setting: { ...this.#setting, ...ONE_BY_ONE, millrace: 'send in process', bullmqCall: 'Queue.add' },
    })
  }

  async process(): Promise<Row> {
    const backlogs = this.#amounts({ millrace: 1_000_000, bullmq: 100_000 })
    const backlog = await Backlog.fill(this.#stage, {
      ...{ redis: this.#redis, app: 'noop', type: 'line.add', stream: 'lines', partitions: 1 },
      commands: backlogs.millrace,
    })
    return await duel(this.#stage, {
      name: 'vs-bullmq-process',
      unit: 'commands/s',
      millrace: { name: 'millrace', play: () => this.#work(backlog) },
      baseline: this.#better((program) => this.#workOff(program, backlogs.bullmq)),
      budget: { of: 'ratio', is: 'at least', bound: 10 },
      rounds: { full: 3, quick: 1 },
      setting: {
        ...this.#setting,
        millraceBacklog: backlogs.millrace,
        bullmqBacklog: backlogs.bullmq,
        millrace: `one worker process, batch handler of 500, at most ${IN_FLIGHT_MAX} in hand`,
        bullmqWorkers: `one process, ${WORKERS.workers} Worker, concurrency ${WORKERS.worker.concurrency}, removeOnComplete`,
      },
    })
  }

  #amounts(full: Amounts): Amounts {
    return this.#stage.quick ? { millrace: full.millrace / 5, bullmq: full.bullmq / 5 } : full
  }

  #producer(goal: number, input: { readonly callers: number; readonly chunk?: number }): Contestant {
    const { url } = this.#redis
    return {
      name: 'millrace',
      play: () => this.#grow(STREAM, goal, () => this.#stage.subject('producer', { url, ...input })),
    }
  }

  #better(play: (program: string) => Promise<Measure>): Contestant {
    return {
      name: 'BullMQ',
      play: async () => {
        const played: { readonly name: string; readonly measure: Measure }[] = []
        for (const { name, program } of this.#runtimes) played.push({ name, measure: await play(program) })
        const [best] = played.toSorted((a, b) => b.measure.value - a.measure.value)
        if (best === undefined) throw new RunError('unavailable', 'There is nothing to run BullMQ with.')
        const details = played.map(({ name, measure }) => [`on ${name}`, Math.round(measure.value)] as const)
        return { ...best.measure, details: { ...Object.fromEntries(details), counts: best.name } }
      },
    }
  }

  #bullmq(program: string, input: object): Subject {
    const script = join(this.#folder, 'bullmq.mjs')
    return this.#stage.subject(
      script,
      { url: this.#redis.url, queue: QUEUE, data: DATA, ...input },
      { program },
    )
  }

  async #grow(key: string, goal: number, start: () => Subject): Promise<Measure> {
    await this.#client.flushall()
    const subject = start()
    await subject.ready()
    const processes = { redis: this.#redis.pid, producer: subject.pid }
    const count = (): Promise<number> => (key === STREAM ? this.#client.xlen(key) : this.#client.llen(key))
    const measure = await watchProgress({ done: count, total: goal, processes, signal: this.#stage.signal })
    await this.#stage.end(subject)
    return measure
  }

  async #work(backlog: Backlog): Promise<Measure> {
    const stage = this.#stage
    await backlog.restore()
    const worker = await stage.role('work', { redis: this.#redis, app: 'noop', flags: ROOMY })
    const measure = await watchUntilDone({
      client: this.#client,
      streams: [STREAM],
      commands: backlog.commands,
      processes: { redis: this.#redis.pid, worker: worker.pid },
      signal: stage.signal,
    })
    await stage.end(worker)
    return measure
  }

  /** Adds a backlog, untimed, and times how it is worked off. */
  async #workOff(program: string, goal: number): Promise<Measure> {
    const stage = this.#stage
    await this.#client.flushdb()
    const filling = this.#bullmq(program, { role: 'fill', count: goal, ...BULK })
    await filling.ready()
    await stage.end(filling)
    const subject = this.#bullmq(program, { role: 'process', ...WORKERS })
    await subject.ready()
    const count = async (): Promise<number> => {
      const [waiting, active] = await Promise.all([this.#client.llen(WAITING), this.#client.llen(ACTIVE)])
      return goal - waiting - active
    }
    const processes = { redis: this.#redis.pid, worker: subject.pid }
    const measure = await watchProgress({ done: count, total: goal, processes, signal: stage.signal })
    await stage.end(subject)
    return measure
  }
}
