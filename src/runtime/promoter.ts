/** Moves due retries, delayed and redriven commands to the ready stream; sleeps until the next one is due. */
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { promoteDue } from '../redis/partition-care.ts'
import type { Clock } from './clock.ts'
import { PeriodicService } from './service.ts'

export interface PromoterOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Longest pause: how late a due command may be found. */
  readonly pauseMaxMs: number
}

const PROMOTE_COUNT_MAX = 500
const PAUSE_MIN_MS = 5

export class Promoter extends PeriodicService {
  constructor(options: PromoterOptions) {
    const { keys, clock, telemetry, pauseMaxMs, link } = options
    const { stream, partition } = keys
    const name = `promoter ${stream}.${partition}`
    super({ name, clock, telemetry, pauseMinMs: PAUSE_MIN_MS, pauseMaxMs }, async () => {
      const { moved, missing, nextMs } = await promoteDue(link, keys, PROMOTE_COUNT_MAX)
      if (moved > 0) telemetry.emit('commands.promoted', { stream, partition, count: moved })
      if (missing.length > 0) {
        telemetry.emit('alarm.raised', {
          alarm: 'commands-lost',
          stream,
          detail: `${missing.length} delayed commands have no body any more: ${missing.slice(0, 10).join(', ')}.`,
        })
      }
      if (moved === PROMOTE_COUNT_MAX) return PAUSE_MIN_MS
      return nextMs === undefined ? pauseMaxMs * (0.75 + clock.random() / 4) : nextMs + 1
    })
  }
}
