/** A command that causes one event, as large as itself. */
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineStream,
  done,
  type HandlerDefinition,
} from 'millrace'
import { orderLine } from '../order-line.ts'

export const lines = defineStream({ name: 'lines' })

export const addLine = defineCommand({ type: 'line.add', stream: lines, payload: orderLine })

export const lineAdded = defineEvent({ type: 'line.added', payload: orderLine })

const DONE = done()

export const onAddLine: HandlerDefinition = defineBatchHandler(
  addLine,
  (batch) =>
    batch.map((command) => {
      command.emit(lineAdded, command.payload)
      return DONE
    }),
  { batchCountMax: 500 },
)
