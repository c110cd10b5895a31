/** The command that costs nothing to handle, in the order of its customer. */
import { defineBatchHandler, defineCommand, defineStream, done, type HandlerDefinition } from 'millrace'
import { orderLine } from '../order-line.ts'

export const lines = defineStream({ name: 'lines', ordering: 'key', partitions: 8 })

export const addLine = defineCommand({
  type: 'line.add',
  stream: lines,
  payload: orderLine,
  key: ({ customer }) => customer,
})

const DONE = done()

export const onAddLine: HandlerDefinition = defineBatchHandler(addLine, (batch) => batch.map(() => DONE), {
  batchCountMax: 500,
})
