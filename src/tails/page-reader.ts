/**
 * Pages of event logs for those who are behind, over the command connection that the whole process shares: few at once, and one
 * read for all who ask for the same page.
 */
import type { RedisLink } from '../redis/connection.ts'
import { type EventPage, readEventPage } from '../redis/event-pages.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import type { LogPosition } from './event-cursor.ts'

const PAGES_AT_ONCE = 4

export class PageReader {
  readonly #command: RedisLink
  readonly #underWay = new Map<string, Promise<EventPage>>()
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(command: RedisLink) {
    this.#command = command
  }

  /**
   * What follows a position. The page may be somebody else's, of another length.
   *
   * @throws MillraceError `redis.unavailable`, `redis.unknown`
   */
  read(keys: PartitionKeys, { id, seen }: LogPosition, entriesMax: number): Promise<EventPage> {
    const inclusive = seen > 0
    const name = `${keys.events} ${id} ${inclusive}`
    const known = this.#underWay.get(name)
    if (known !== undefined) return known
    const page = this.#inTurn(() => readEventPage(this.#command, keys, { id, inclusive, entriesMax }))
    this.#underWay.set(name, page)
    const forget = () => void this.#underWay.delete(name)
    page.then(forget, forget)
    return page
  }

  /** Where the log ends now, and whether that is an entry. @throws as `read` */
  async end(keys: PartitionKeys): Promise<{ readonly id: string; readonly isEntry: boolean }> {
    const start = { id: '0-0', inclusive: false, entriesMax: 0 }
    const { last: id, isLastEntry: isEntry } = await this.#inTurn(() =>
      readEventPage(this.#command, keys, start),
    )
    return { id, isEntry }
  }

  async #inTurn(read: () => Promise<EventPage>): Promise<EventPage> {
    if (this.#running >= PAGES_AT_ONCE) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting.push(resolve)
      await promise
    } else this.#running += 1
    try {
      return await read()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#running -= 1
      else next()
    }
  }
}
