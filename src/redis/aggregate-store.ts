/**
 * The events of one aggregate, in the order of its versions.
 *
 * Each aggregate has a stream of its own whose entry id is the version (`17-0`), so Redis refuses a stale append by
 * itself. Appending happens in `lua/settle.lua`, together with the acknowledgement; this file only reads.
 */
import { replyArray, replyBuffer, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'

export interface StoredEvent {
  /** 1 for the first. */
  readonly version: number
  /** Of the command that caused it. */
  readonly token: string
  /** As `encodeEntry` made it. */
  readonly blob: Buffer
}

const PAGE_COUNT = 500

/**
 * Hands the events of versions above `afterVersion`, up to `lastVersion`, to `take`, a page at a time: memory does not grow
 * with the history. Answers the version reached.
 */
export async function readAggregateEvents(
  link: RedisLink,
  key: string,
  range: { readonly afterVersion: number; readonly lastVersion?: number | undefined },
  take: (event: StoredEvent) => void,
): Promise<number> {
  const end = range.lastVersion === undefined ? '+' : `${range.lastVersion}-0`
  let version = range.afterVersion
  for (;;) {
    const start = `${version + 1}-0`
    const page = await link.use('the events of an aggregate', (client) =>
      client.xrangeBuffer(key, start, end, 'COUNT', PAGE_COUNT),
    )
    for (const [id, fields] of page) {
      version = Number(replyText(id).split('-', 1)[0])
      const [token, blob] = replyArray(fields)
      take({ version, token: replyText(token), blob: replyBuffer(blob) })
    }
    if (page.length < PAGE_COUNT) return version
  }
}
