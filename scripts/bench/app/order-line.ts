/** The payload of the command that is measured everywhere. */
import { z } from 'zod'

const SHAPE = {
  order: z.string(),
  customer: z.string(),
  sku: z.string(),
  quantity: z.int().min(1),
  cents: z.int().min(0),
  currency: z.string().length(3),
  note: z.string(),
}

export const orderLine: z.ZodObject<typeof SHAPE> = z.object(SHAPE)
