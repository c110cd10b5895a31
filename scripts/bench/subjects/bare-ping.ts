/** Baseline of a cold start: Bun, ioredis, one answer. Without what ioredis asks a server for by itself. */
import { Redis } from 'ioredis'
import { input, tellReady } from './_subject.ts'

const { url } = input<{ url: string }>()
const client = new Redis(url, {
  ...{ protocol: 2, replyMapping: 'legacy', enableReadyCheck: false, disableClientInfo: true },
})
tellReady({ answer: await client.ping() })
