/**
 * A world for leases in which time is virtual and everything goes wrong by a seed: processes that freeze, die and have
 * clocks of uneven speed; a server that freezes, restarts and is set to another hour; requests and answers that are slow or
 * lost. The real contender and the real holder run in it; only Redis is a model of its three scripts.
 */
import { MillraceError } from '../../src/contracts/errors.ts'
import type { Lease } from '../../src/contracts/lease.ts'
import { Leases } from '../../src/leases/leases.ts'
import type { RedisLink, RedisLinks } from '../../src/redis/connection.ts'
import type { Clock } from '../../src/runtime/clock.ts'
import { FakeClock } from '../../src/testing.ts'
import { SILENT_TELEMETRY } from './telemetry.ts'

export const FAULTS = [
  ...(['freeze', 'cut', 'kill', 'server-freeze', 'server-restart', 'clock-step'] as const),
  ...(['slow-request', 'slow-answer', 'lost-request', 'lost-answer'] as const),
] as const
export type Fault = (typeof FAULTS)[number]

/** Numbers in [0, 1) that a seed repeats (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** What the three scripts do, in words of this language. */
class ModelServer {
  owner = ''
  epoch = 0
  beat = 0
  takeover = ''
  clockMs = 0

  run(script: string, args: readonly string[]): unknown {
    const [owner = '', second = '', seenOwner = '', seenEpoch = '', seenBeat = ''] = args
    if (script === 'lease-take') {
      const state = () => [this.owner, String(this.epoch), String(this.beat), this.takeover]
      if (this.owner === owner) {
        this.beat += 1
        return ['1', ...state()]
      }
      const same =
        this.owner === seenOwner && String(this.epoch) === seenEpoch && String(this.beat) === seenBeat
      if (this.owner !== '' && !same) return ['0', ...state()]
      this.epoch = Math.max(this.epoch + 1, this.clockMs)
      this.owner = owner
      this.beat = 0
      this.takeover = second
      return ['1', ...state()]
    }
    const mine = this.owner === owner && String(this.epoch) === second
    if (script === 'lease-renew') {
      if (this.epoch === 0) return 'gone'
      if (mine) this.beat += 1
      return mine ? 'held' : 'taken'
    }
    if (mine) this.owner = ''
    return mine ? 1 : 0
  }
}

/** One process: everything that reaches it waits while it is frozen, and comes in any order when it wakes. */
class WorldProcess {
  readonly leases: Leases
  lease: Lease | undefined
  frozen = false
  dead = false
  /** Nothing gets through to the server and back. */
  cut = false
  readonly #world: LeaseWorld
  readonly #rate: number
  readonly #takeoverMs: number
  #waiting: (() => void)[] = []
  #inFlight = new Set<(error: Error) => void>()

  constructor(world: LeaseWorld, takeoverMs: number) {
    this.#world = world
    this.#takeoverMs = takeoverMs
    this.#rate = 0.97 + world.random() * 0.06
    const link = {
      run: (script: string, _keys: unknown, args: readonly unknown[]) => this.#send(script, args),
      reconnect: () => this.#drop(),
      whenReady: async () => undefined,
    } as unknown as RedisLink
    const links = { open: () => link, close: () => undefined } as unknown as RedisLinks
    this.leases = new Leases({ links, clock: this.#clock(), telemetry: SILENT_TELEMETRY })
  }

  /** Nobody outside can stop a process between two of its steps better than this: it acts only when it is awake. */
  get acting(): boolean {
    return !this.frozen && !this.dead
  }

  async live(): Promise<void> {
    await this.leases.start()
    while (!this.dead) {
      this.lease = await this.leases.acquire('world', { takeoverMs: this.#takeoverMs })
      const { lease } = this
      this.#world.epochs.push(lease.epoch)
      const untilMs = this.#world.clock.monotonicMs() + this.#world.random() * 20_000
      while (!lease.signal.aborted && this.#world.clock.monotonicMs() < untilMs) await this.#clock().sleep(10)
      await lease.release()
      this.lease = undefined
    }
  }

  deliver(call: () => void): void {
    if (this.dead) return
    if (this.frozen) this.#waiting.push(call)
    else call()
  }

  wake(): void {
    this.frozen = false
    const waiting = this.#waiting
    this.#waiting = []
    for (const call of waiting.toSorted(() => this.#world.random() - 0.5)) call()
  }

  #clock(): Clock {
    const { clock, random } = this.#world
    const rate = this.#rate
    const after: Clock['after'] = (ms, call) => clock.after(ms / rate, () => this.deliver(call))
    return {
      nowMs: () => 0,
      monotonicMs: () => clock.monotonicMs() * rate,
      random,
      after,
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          if (signal?.aborted === true) return resolve()
          const finish = () => {
            timer.cancel()
            signal?.removeEventListener('abort', finish)
            resolve()
          }
          const timer = after(ms, finish)
          signal?.addEventListener('abort', finish, { once: true })
        }),
    }
  }

  #send(script: string, args: readonly unknown[]): Promise<unknown> {
    const { clock } = this.#world
    return new Promise((resolve, reject) => {
      this.#inFlight.add(reject)
      const fail = () => this.deliver(() => reject(lostAnswer()))
      const { there, back } = this.cut ? NOWHERE : this.#world.journey()
      if (there === undefined) return void clock.after(500, fail)
      clock.after(there, () =>
        this.#world.atServer(() => {
          const answer = this.#world.server.run(script, args.map(String))
          if (back === undefined || this.cut) clock.after(500, fail)
          else clock.after(back, () => this.deliver(() => resolve(answer)))
          this.#inFlight.delete(reject)
        }),
      )
    })
  }

  #drop(): void {
    const lost = [...this.#inFlight]
    this.#inFlight.clear()
    for (const reject of lost) reject(lostAnswer())
  }
}

const NOWHERE = { there: undefined, back: undefined }

function lostAnswer(): MillraceError {
  return new MillraceError('redis.unknown', 'No certain answer.')
}

export class LeaseWorld {
  readonly clock: FakeClock
  readonly random: () => number
  readonly server = new ModelServer()
  readonly epochs: number[] = []
  readonly fired = new Map<Fault, number>()
  #processes: WorldProcess[] = []
  #atServer: (() => void)[] | undefined
  #quiet = false
  readonly #takeoverMs: number

  constructor(seed: number, takeoverMs: number) {
    this.random = randomFrom(seed)
    this.clock = new FakeClock({ random: this.random })
    this.#takeoverMs = takeoverMs
    for (let place = 0; place < 3; place++) this.#start()
  }

  /** Runs so many steps of some ten ms each, with faults in between, and judges after each. Answers what was wrong. */
  async run(steps: number): Promise<string[]> {
    const wrong: string[] = []
    for (let step = 0; step < steps; step++) {
      if (this.random() < 0.012) this.#disturb()
      await this.clock.advance(5 + this.random() * 30)
      const holders = this.#processes.filter(({ acting, lease }) => acting && lease?.signal.aborted === false)
      if (holders.length > 1) wrong.push(`step ${step}: ${holders.length} hold the lease`)
    }
    const sorted = this.epochs.toSorted((a, b) => a - b)
    if (new Set(sorted).size !== sorted.length || sorted.join() !== this.epochs.join()) {
      wrong.push(`epochs ${this.epochs.join(' ')}`)
    }
    return wrong
  }

  /** Nothing goes wrong any more: somebody must get it. */
  async calm(ms: number): Promise<boolean> {
    this.#quiet = true
    for (const each of this.#processes) {
      each.cut = false
      each.wake()
    }
    this.#thaw()
    const before = this.epochs.length
    const held = this.#processes.some(({ lease }) => lease?.held === true)
    await this.clock.advance(ms)
    return held || this.epochs.length > before
  }

  end(): void {
    for (const each of this.#processes) each.dead = true
  }

  atServer(call: () => void): void {
    if (this.#atServer === undefined) call()
    else this.#atServer.push(call)
  }

  journey(): { there: number | undefined; back: number | undefined } {
    const leg = (slow: Fault, lost: Fault): number | undefined => {
      const draw = this.#quiet ? 1 : this.random()
      if (draw < 0.01) return void this.#count(lost)
      if (draw < 0.06) this.#count(slow)
      return draw < 0.06 ? this.random() * 1000 : this.random() * 20
    }
    return { there: leg('slow-request', 'lost-request'), back: leg('slow-answer', 'lost-answer') }
  }

  #start(): void {
    const started = new WorldProcess(this, this.#takeoverMs)
    this.#processes.push(started)
    void started.live()
  }

  #count(fault: Fault): void {
    this.fired.set(fault, (this.fired.get(fault) ?? 0) + 1)
  }

  #disturb(): void {
    const kinds = [
      'freeze',
      'freeze',
      ...(['cut', 'cut', 'cut', 'cut'] as const),
      'kill',
      'server-freeze',
      'server-restart',
      'clock-step',
    ] as const
    const fault = kinds[Math.floor(this.random() * kinds.length)] ?? 'freeze'
    this.#count(fault)
    const victim = this.#processes[Math.floor(this.random() * this.#processes.length)]
    switch (fault) {
      case 'freeze':
        if (victim === undefined || victim.frozen) return
        victim.frozen = true
        this.clock.after(this.random() * 3 * this.#takeoverMs, () => victim.wake())
        return
      case 'cut':
        if (victim === undefined) return
        victim.cut = true
        this.clock.after(this.random() * 3 * this.#takeoverMs, () => {
          victim.cut = false
        })
        return
      case 'kill':
        if (victim === undefined) return
        victim.dead = true
        this.#processes = this.#processes.filter((each) => each !== victim)
        this.#start()
        return
      case 'server-freeze':
        this.#atServer ??= []
        this.clock.after(this.random() * 2 * this.#takeoverMs, () => this.#thaw())
        return
      case 'server-restart':
        // What it had received and not run is lost; who asked hears nothing.
        this.#atServer = []
        this.clock.after(this.random() * this.#takeoverMs, () => {
          this.#atServer = undefined
        })
        return
      case 'clock-step':
        this.server.clockMs = this.random() * 10_000_000
        return
      default:
        fault satisfies never
    }
  }

  #thaw(): void {
    const waiting = this.#atServer ?? []
    this.#atServer = undefined
    for (const call of waiting) call()
  }
}
