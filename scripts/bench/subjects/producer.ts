/** The product's producer in a process of its own: so many callers, each of which sends one command and awaits its answer. */
import { openProducer } from 'millrace'
import { addLine, lines } from '../app/noop/noop.ts'
import { orderLines } from '../payload.ts'
import { input, tellReady } from './_subject.ts'

const { url, callers } = input<{ url: string; callers: number }>()

const producer = await openProducer({ redisUrl: url, definitions: [lines, addLine] })
const next = orderLines()

async function caller(): Promise<void> {
  for (;;) await producer.send(addLine, next())
}

tellReady({})
await Promise.all(Array.from({ length: callers }, caller))
