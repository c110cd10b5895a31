/**
 * The application that is fuzzed: commands that nobody handles, so that what was accepted stays where it can be counted, and a
 * stream that was worked on before, so that there are views, dead letters, ended commands and a schedule to ask for.
 */
import {
  defineCommand,
  defineEvent,
  defineHandler,
  defineProjection,
  defineSchedule,
  defineStream,
  done,
  type HandlerDefinition,
  type ProjectionDefinition,
  reject,
  type ScheduleDefinition,
} from 'millrace'
import { z } from 'zod'

export const kept = defineStream({ name: 'kept', partitions: 2 })
export const worked = defineStream({ name: 'worked', partitions: 2 })

export const note = defineCommand({
  type: 'kept.note',
  stream: kept,
  payload: z.object({ mark: z.string().max(64), any: z.unknown().optional() }),
  key: ({ mark }) => mark,
})
export const sum = defineCommand({
  type: 'kept.sum',
  stream: kept,
  payload: z.strictObject({ mark: z.string(), numbers: z.array(z.int().max(1000)).max(20) }),
})
export const count = defineCommand({
  type: 'worked.count',
  stream: worked,
  payload: z.object({ name: z.string() }),
  key: ({ name }) => name,
})
export const fail = defineCommand({ type: 'worked.fail', stream: worked, payload: z.object({ n: z.int() }) })
export const counted = defineEvent({ type: 'worked.counted', payload: z.object({ name: z.string() }) })

export const onCount: HandlerDefinition = defineHandler(count, (command) => {
  command.emit(counted, { name: command.payload.name })
  return done()
})
export const onFail: HandlerDefinition = defineHandler(fail, ({ payload }) => reject(`no ${payload.n}`))

export const counts: ProjectionDefinition<{ count: number }> = defineProjection<{ count: number }>({
  name: 'counts',
  stream: worked,
  initial: () => ({ count: 0 }),
}).on(
  counted,
  ({ payload }) => payload.name,
  (view) => ({ count: view.count + 1 }),
)

export const nightly: ScheduleDefinition = defineSchedule({
  name: 'nightly',
  command: count,
  payload: { name: 'night' },
  cron: '0 3 1 1 *',
})
