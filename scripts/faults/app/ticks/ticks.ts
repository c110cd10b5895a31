/** One schedule that ticks every 100 ms and catches up with everything it missed; each tick ends with an event that names it. */
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineSchedule,
  defineStream,
  done,
  type HandlerDefinition,
  type ScheduleDefinition,
} from 'millrace'
import { z } from 'zod'
import { journaled } from '../_journal.ts'

const PERIOD_MS = 100

export const ticks = defineStream({ name: 'ticks' })

export const tick = defineCommand({
  type: 'tick.mark',
  stream: ticks,
  payload: z.object({ n: z.int(), k: z.int(), s: z.int() }),
  key: () => 'clock',
})

export const tickDone = defineEvent({
  type: 'tick.done',
  payload: z.object({ n: z.int(), k: z.int(), s: z.int() }),
})

const baseMs = Number(process.env['FAULTS_BASE_MS'] ?? 0)

export const onTick: HandlerDefinition = defineBatchHandler(
  tick,
  journaled(
    (batch) =>
      batch.map((command) => {
        command.emit(tickDone, { n: command.tickMs ?? 0, k: 0, s: 0 })
        return done()
      }),
    ({ tickMs = 0 }) => ({ n: Math.max(0, Math.floor((tickMs - baseMs) / PERIOD_MS)), k: 0, s: 0 }),
  ),
  { batchCountMax: 200 },
)

export const everyTick: ScheduleDefinition = defineSchedule({
  name: 'every-tick',
  command: tick,
  payload: { n: 0, k: 0, s: 0 },
  every: PERIOD_MS,
  catchUp: 'all',
  catchUpCountMax: 100_000,
})
