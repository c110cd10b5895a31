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

const timed = defineStream({ name: 'timed' })

const order = z.object({
  order: z.string(),
  customer: z.string(),
  sku: z.string(),
  quantity: z.int().min(1),
  cents: z.int().min(0),
  currency: z.string().length(3),
  note: z.string(),
})

export const place: CommandDefinition<'order.place', typeof order> = defineCommand({
  type: 'order.place',
  stream: timed,
  payload: order,
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
