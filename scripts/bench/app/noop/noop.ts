/** A command that costs nothing to handle: what is measured is the runtime around it. */
import { defineBatchHandler, defineCommand, defineStream, done, type HandlerDefinition } from 'millrace'
import { orderLine } from '../order-line.ts'

export const lines = defineStream({ name: 'lines' })

export const addLine = defineCommand({ type: 'line.add', stream: lines, payload: orderLine })

const DONE = done()

export const onAddLine: HandlerDefinition = defineBatchHandler(addLine, (batch) => batch.map(() => DONE), {
  batchCountMax: 500,
})
