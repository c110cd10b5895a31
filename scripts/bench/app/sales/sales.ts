/** Commands that cost little to handle, an event from each, and a view for each customer: the path from end to end. */
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineProjection,
  defineStream,
  done,
  type HandlerDefinition,
  type ProjectionDefinition,
} from 'millrace'
import { z } from 'zod'
import { orderLine } from '../order-line.ts'

export const sales = defineStream({ name: 'sales' })

export const addSale = defineCommand({
  type: 'sale.add',
  stream: sales,
  payload: orderLine,
})

export const saleAdded = defineEvent({
  type: 'sale.added',
  payload: z.object({ customer: z.string(), cents: z.int() }),
})

const DONE = done()

export const onAddSale: HandlerDefinition = defineBatchHandler(
  addSale,
  (batch) =>
    batch.map((command) => {
      const { customer, cents } = command.payload
      command.emit(saleAdded, { customer, cents })
      return DONE
    }),
  { batchCountMax: 500 },
)

interface Customer {
  count: number
  cents: number
}

export const customers: ProjectionDefinition<Customer> = defineProjection({
  name: 'customers',
  stream: sales,
  initial: (): Customer => ({ count: 0, cents: 0 }),
}).on(
  saleAdded,
  ({ payload }) => payload.customer,
  (view, { payload }) => {
    view.count += 1
    view.cents += payload.cents
    return view
  },
)
