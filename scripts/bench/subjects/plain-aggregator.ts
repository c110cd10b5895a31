/**
 * Baseline: events counted in Redis as fast as ioredis can, with nothing around it. An event is a pair in an entry,
 * `<customer> <cents>`, so nothing is decoded. The next read is on its way before the last one is counted; how far it has come
 * is written once a read.
 */
import { Redis } from 'ioredis'
import { input, tellReady } from './_subject.ts'

const { url, stream, progress, count } = input<{
  url: string
  stream: string
  progress: string
  count: number
}>()

const OPTIONS = { protocol: 2, replyMapping: 'legacy' } as const
const client = new Redis(url, OPTIONS)
/** Of its own: behind a read that waits for more, counting would wait too. */
const reader = new Redis(url, OPTIONS)

type Reply = [string, [string, string[]][]][] | null

const read = (after: string): Promise<Reply> =>
  reader.xread('COUNT', count, 'BLOCK', 1000, 'STREAMS', stream, after) as Promise<Reply>

await Promise.all([client.ping(), reader.ping()])
tellReady({})
let after = '0-0'
let next = read(after)
for (;;) {
  const entries = (await next)?.[0]?.[1] ?? []
  after = entries.at(-1)?.[0] ?? after
  next = read(after)
  if (entries.length === 0) continue
  const pipeline = client.pipeline()
  for (const [, pairs] of entries) {
    for (let i = 0; i + 1 < pairs.length; i += 2) {
      const key = `plain:${pairs[i]}`
      pipeline.hincrby(key, 'count', 1)
      pipeline.hincrby(key, 'cents', pairs[i + 1] ?? '0')
    }
  }
  pipeline.set(progress, after)
  void pipeline.exec()
}
