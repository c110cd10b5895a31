/**
 * A command whose handler tells when it started, by this machine's wall clock: in the event that it emits, and so in the view
 * of its order. One view an order, so that each command's time can be read afterwards, and none is disturbed to tell it.
 */
import {
  type CommandDefinition,
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineProjection,
  defineStream,
  done,
  type EventDefinition,
  type HandlerDefinition,
  type ProjectionDefinition,
} from 'millrace'
import { z } from 'zod'
import { orderLine } from '../order-line.ts'

const timed = defineStream({ name: 'timed' })

export const place: CommandDefinition<'order.place', typeof orderLine> = defineCommand({
  type: 'order.place',
  stream: timed,
  payload: orderLine,
})

const started = z.object({ order: z.string(), startedAtMs: z.number() })

export const placed: EventDefinition<'order.placed', typeof started> = defineEvent({
  type: 'order.placed',
  payload: started,
})

const DONE = done()

export const onPlace: HandlerDefinition = defineBatchHandler(place, (batch) => {
  const startedAtMs = performance.timeOrigin + performance.now()
  return batch.map((command) => {
    command.emit(placed, { order: command.payload.order, startedAtMs })
    return DONE
  })
})

export const starts: ProjectionDefinition<{ startedAtMs: number }> = defineProjection({
  name: 'starts',
  stream: timed,
  initial: () => ({ startedAtMs: 0 }),
}).on(
  placed,
  ({ payload }) => payload.order,
  (_, { payload }) => ({ startedAtMs: payload.startedAtMs }),
)
