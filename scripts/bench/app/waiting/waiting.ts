/** Commands whose handling is mostly waiting for something else: 5 ms a batch, one batch after another. */
import { defineBatchHandler, defineCommand, defineStream, done, type HandlerDefinition } from 'millrace'
import { orderLine } from '../order-line.ts'

export const lines = defineStream({ name: 'lines' })

export const addLine = defineCommand({ type: 'line.add', stream: lines, payload: orderLine })

const DONE = done()
const WAIT_MS = 5

export const onAddLine: HandlerDefinition = defineBatchHandler(
  addLine,
  async (batch) => {
    await Bun.sleep(WAIT_MS)
    return batch.map(() => DONE)
  },
  { batchCountMax: 100, concurrencyMax: 1 },
)
