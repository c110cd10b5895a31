/** Singletons across a fleet, and the exported `lease`, in whole processes of Millrace: one at a time, handed on, never lost. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  defineCommand,
  defineHandler,
  defineSingleton,
  done,
  type Lease,
  lease,
  type Millrace,
  type MillraceOptions,
  type SingletonOptions,
  startMillrace,
} from 'millrace'
import { RecordedTelemetry } from 'millrace/testing'
import { z } from 'zod'
import { leaseKey } from '../src/redis/keys.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { until } from './support/until.ts'

let redis: TestRedis
let made = 0

beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
})
afterAll(() => redis[Symbol.asyncDispose]())

const TAKEOVER_MS = 1000

interface Turn {
  readonly host: string
  readonly lease: Lease
  readonly startedMs: number
  endedMs: number | undefined
}

/** A singleton that notes its turns, on hosts that share the notes. */
class Stage implements AsyncDisposable {
  readonly name: string
  readonly turns: Turn[] = []
  readonly telemetry = new RecordedTelemetry()
  readonly #hosts = new Map<string, Millrace>()
  readonly #run: (turn: Turn) => Promise<void>

  constructor(run: (turn: Turn) => Promise<void>) {
    made += 1
    this.name = `stage-${made}`
    this.#run = run
  }

  async start(
    host: string,
    over: Partial<SingletonOptions> = {},
    options: MillraceOptions = {},
  ): Promise<void> {
    const singleton = defineSingleton({
      name: this.name,
      takeoverMs: TAKEOVER_MS,
      pauseMs: 10,
      run: async (held) => {
        const turn: Turn = { host, lease: held, startedMs: performance.now(), endedMs: undefined }
        this.turns.push(turn)
        try {
          await this.#run(turn)
        } finally {
          turn.endedMs = performance.now()
        }
      },
      ...over,
    })
    const started = await startMillrace({
      role: 'work',
      redisUrl: redis.url,
      adminPort: 0,
      definitions: [singleton],
      onTelemetry: this.telemetry.listener,
      ...options,
    })
    this.#hosts.set(host, started)
  }

  async stop(host: string): Promise<void> {
    await this.#hosts.get(host)?.stop()
    this.#hosts.delete(host)
  }

  /** The turn that is on now. */
  get present(): Turn | undefined {
    return this.turns.findLast((turn) => turn.endedMs === undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#hosts.keys()].map((host) => this.stop(host)))
  }
}

const untilAborted = (signal: AbortSignal): Promise<void> =>
  signal.aborted
    ? Promise.resolve()
    : new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))

function expectOneAtATime(turns: readonly Turn[]): void {
  for (const [i, turn] of turns.entries()) {
    const before = turns[i - 1]
    if (before === undefined) continue
    expect(turn.startedMs).toBeGreaterThanOrEqual(before.endedMs ?? Number.POSITIVE_INFINITY)
    expect(turn.lease.epoch).toBeGreaterThan(before.lease.epoch)
  }
}

describe('a singleton', () => {
  test('runs in one process; when that stops, it ends there first and then runs in another', async () => {
    await using stage = new Stage(async ({ lease: held }) => {
      await untilAborted(held.signal)
      // Winding up: a stop of the process leaves it the lease until it has ended.
      expect(held.held).toBe(true)
      await Bun.sleep(50)
      held.assertHeld()
    })
    for (const host of ['a', 'b', 'c']) await stage.start(host)
    for (let round = 0; round < 2; round++) {
      await until('a turn', () => stage.present !== undefined)
      await stage.stop(stage.present?.host ?? '')
    }
    await until('the last turn', () => stage.present !== undefined)
    expect(stage.turns.length).toBe(3)
    await stage[Symbol.asyncDispose]()
    expectOneAtATime(stage.turns)
    expect(new Set(stage.turns.map(({ host }) => host)).size).toBe(3)
    expect(stage.telemetry.of('lease.lost')).toEqual([])
  })

  test('that ends runs again, in whichever process, after a pause', async () => {
    await using stage = new Stage(async () => {
      await Bun.sleep(5)
    })
    await stage.start('a')
    await stage.start('b')
    await until('ten turns', () => stage.turns.length >= 10)
    await stage[Symbol.asyncDispose]()
    expectOneAtATime(stage.turns)
    expect(stage.telemetry.of('service.failed')).toEqual([])
  })

  test('that throws says so, gives the lease away, and comes back later and later', async () => {
    await using stage = new Stage(async ({ host }) => {
      throw new Error(`no luck on ${host}`)
    })
    await stage.start('a')
    await stage.telemetry.until('service.failed', (failed) => failed.length >= 3)
    const [first, second, third] = stage.turns
    expect((second?.startedMs ?? 0) - (first?.startedMs ?? 0)).toBeGreaterThanOrEqual(1000)
    expect((third?.startedMs ?? 0) - (second?.startedMs ?? 0)).toBeGreaterThanOrEqual(2000)
    expect(stage.telemetry.of('service.failed')[0]).toEqual({
      service: `singleton ${stage.name}`,
      error: 'Error: no luck on a',
    })
    expect(stage.telemetry.of('lease.released').length).toBeGreaterThanOrEqual(3)
  })

  test('whose lease is lost hears it at once; with nobody there it runs again here, under a higher epoch', async () => {
    await using stage = new Stage(({ lease: held }) => untilAborted(held.signal))
    await stage.start('a')
    await until('a turn', () => stage.present !== undefined)
    const link = await redis.open()
    await link.client.hset(leaseKey(stage.name), 'owner', 'somebody-who-died')
    await until('the second turn', () => stage.turns.length === 2)
    expect(stage.telemetry.of('lease.lost')[0]?.reason).toBe('taken')
    await stage[Symbol.asyncDispose]()
    expectOneAtATime(stage.turns)
  })

  test('that does not heed its signal raises an alarm, and keeps nobody from running beside it but by its epoch', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    await using stage = new Stage(() => promise)
    await stage.start('a')
    await until('a turn', () => stage.present !== undefined)
    const link = await redis.open()
    await link.client.hset(leaseKey(stage.name), 'owner', 'somebody')
    await stage.telemetry.until('alarm.raised')
    resolve()
    expect(stage.telemetry.of('alarm.raised')[0]).toMatchObject({
      alarm: 'singleton-overrun',
      detail: expect.stringContaining('Make it heed the signal'),
    })
  })

  test('is refused without a name, a function or sensible figures', async () => {
    const run = () => undefined
    const refused = (options: object) => () => defineSingleton(options as SingletonOptions)
    expect(refused({ name: 'No', run })).toThrow('Singleton name "No" is not allowed')
    expect(refused({ name: 'x' })).toThrow('"run" of singleton "x" must be a function')
    expect(refused({ name: 'x', run, takeoverMs: 10 })).toThrow('"takeoverMs" of lease "x"')
    expect(refused({ name: 'x', run, pause: 10 })).toThrow('Did you mean "pauseMs"?')
    const twice = [defineSingleton({ name: 'x', run }), defineSingleton({ name: 'x', run })]
    const started = startMillrace({ role: 'work', redisUrl: redis.url, adminPort: 0, definitions: twice })
    expect(await rejection(started)).toMatchObject({ code: 'definition.duplicate' })
  })
})

describe('the exported lease', () => {
  const count = defineCommand({ type: 'count.up', stream: 'counting', payload: z.object({ n: z.number() }) })

  test('is there inside handlers: no two of them are in it at once', async () => {
    let inside = 0
    let most = 0
    let ended = 0
    const onCount = defineHandler(
      count,
      async (_command, { signal }) => {
        await using turn = await lease('counting', { signal, takeoverMs: TAKEOVER_MS })
        inside += 1
        most = Math.max(most, inside)
        await Bun.sleep(1)
        turn.assertHeld()
        inside -= 1
        ended += 1
        return done()
      },
      { concurrencyMax: 3 },
    )
    await using millrace = await startMillrace({
      role: 'all',
      redisUrl: redis.url,
      port: 0,
      adminPort: 0,
      definitions: [count, onCount],
    })
    for (let n = 0; n < 6; n++) {
      const response = await fetch(`${millrace.urls.public}/v1/commands/count.up`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ n }),
      })
      expect(response.status).toBe(202)
    }
    await until('all six', () => ended === 6)
    expect(most).toBe(1)
    const own = await millrace.lease('counting', { waitMs: 0 })
    expect(own.held).toBe(true)
  })

  test('says what to do when no Millrace runs here, or several', async () => {
    expect(await rejection(lease('x'))).toMatchObject({
      code: 'service.stopped',
      message: expect.stringContaining('No Millrace runs in this process'),
    })
    await using stage = new Stage(async () => undefined)
    await stage.start('a')
    await stage.start('b')
    expect(await rejection(lease('x'))).toMatchObject({
      code: 'config.invalid',
      message: expect.stringContaining('Several'),
    })
  })
})
