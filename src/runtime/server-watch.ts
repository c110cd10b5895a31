/**
 * What a worker process knows of its Redis as a whole, from a look every half second: the time there, for deadlines; how full
 * it is, for how much may be read; whether it evicts, for an alarm.
 *
 * Between two looks, and while Redis is away, its clock is estimated from the monotonic clock of this process.
 */
import type { Telemetry } from '../contracts/telemetry.ts'
import { EvictionSigns } from '../policies/eviction-signs.ts'
import { decidePressure, type MemoryPressure } from '../policies/memory-pressure.ts'
import type { RedisLink } from '../redis/connection.ts'
import { readServerState } from '../redis/server-state.ts'
import type { Clock } from './clock.ts'
import { ServerTime } from './server-time.ts'
import { PeriodicService } from './service.ts'

export interface ServerWatchOptions {
  readonly link: RedisLink
  readonly clock: Clock
  readonly telemetry: Telemetry
}

const LOOK_EVERY_MS = 500

const ALARMS: Readonly<Record<Exclude<MemoryPressure, 'none'>, string>> = {
  drain: 'workers read one batch at a time until it falls',
  stop: 'workers read nothing until it falls',
}

export class ServerWatch extends PeriodicService {
  readonly #options: ServerWatchOptions
  readonly #time = new ServerTime()
  readonly #eviction = new EvictionSigns()
  #pressure: MemoryPressure = 'none'

  constructor(options: ServerWatchOptions) {
    const { clock, telemetry } = options
    const pauses = { pauseMinMs: LOOK_EVERY_MS, pauseMaxMs: LOOK_EVERY_MS }
    super({ name: 'server watch', clock, telemetry, ...pauses }, async () => {
      await this.#look()
      return LOOK_EVERY_MS
    })
    this.#options = options
  }

  get pressure(): MemoryPressure {
    return this.#pressure
  }

  /** The latest that Redis's clock may read now, ms since 1970; NaN before the start. */
  readonly latestMs = (): number => this.#time.latestAt(this.#options.clock.monotonicMs())

  protected override async onStart(): Promise<void> {
    await this.#look()
    await super.onStart()
  }

  async #look(): Promise<void> {
    const { link, clock, telemetry } = this.#options
    const askedMs = clock.monotonicMs()
    const state = await readServerState(link)
    this.#time.learn(state.timeMs, askedMs, clock.monotonicMs())
    for (const detail of this.#eviction.observe(state)) {
      telemetry.emit('alarm.raised', { alarm: 'eviction', stream: undefined, detail })
    }
    const { usedBytes, limitBytes } = state
    const pressure = decidePressure(limitBytes > 0 ? usedBytes / limitBytes : 0, this.#pressure)
    if (pressure === this.#pressure) return
    this.#pressure = pressure
    telemetry.emit('memory.pressed', { level: pressure, usedBytes, limitBytes })
    if (pressure === 'none') return
    telemetry.emit('alarm.raised', {
      alarm: `memory-${pressure}`,
      stream: undefined,
      detail: `Redis uses ${usedBytes} of ${limitBytes} bytes (maxmemory): ${ALARMS[pressure]}. Give it more memory, or keep less.`,
    })
  }
}
