/** A command that costs nothing to handle: what is measured is the runtime around it. */
import { defineBatchHandler, defineCommand, defineStream, done, type HandlerDefinition } from 'millrace'
import { z } from 'zod'

export const lines = defineStream({ name: 'lines' })

export const addLine = defineCommand({
  type: 'line.add',
  stream: lines,
  payload: z.object({
    order: z.string(),
    customer: z.string(),
    sku: z.string(),
    quantity: z.int().min(1),
    cents: z.int().min(0),
    currency: z.string().length(3),
    note: z.string(),
  }),
})

const DONE = done()

export const onAddLine: HandlerDefinition = defineBatchHandler(addLine, (batch) => batch.map(() => DONE), {
  batchCountMax: 500,
})
