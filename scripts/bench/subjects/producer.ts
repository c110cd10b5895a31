/**
 * The product's producer in a process of its own: so many callers, each of which sends one command and awaits its answer; with
 * `chunk` each sends so many at once.
 */
import { openProducer } from 'millrace'
import { addLine, lines } from '../app/noop/noop.ts'
import { orderLines } from '../payload.ts'
import { input, tellReady } from './_subject.ts'

const { url, callers, chunk } = input<{ url: string; callers: number; chunk?: number }>()

const producer = await openProducer({ redisUrl: url, definitions: [lines, addLine] })
const next = orderLines()

async function caller(): Promise<void> {
  for (;;) {
    if (chunk === undefined) await producer.send(addLine, next())
    else await sendChunk(chunk)
  }
}

async function sendChunk(count: number): Promise<void> {
  const sendings = Array.from({ length: count }, () => ({ command: addLine, payload: next() }))
  for (const { accepted } of await producer.sendMany(sendings)) {
    if (accepted === undefined) throw new Error('a command was refused')
  }
}

tellReady({})
await Promise.all(Array.from({ length: callers }, caller))
