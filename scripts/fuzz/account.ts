/**
 * What was told against what is stored: every id of a 202 is in its stream or waits for its time, and nothing else is there but
 * what a broken connection left without an answer.
 */
import type { Redis } from 'ioredis'
import type { Fault } from './oracle.ts'

const PAGE_ENTRIES = 2000

export class Account {
  /** `<stream>.<partition>.<token>` of ids that 202 answers gave, less what was cancelled. */
  readonly #accepted = new Set<string>()
  /** Cases whose answer was lost: their commands may be stored or not. */
  readonly #unknown = new Set<number>()
  readonly #before = new Set<string>()

  get acceptedCount(): number {
    return this.#accepted.size
  }

  accept(id: string): void {
    this.#accepted.add(placeOf(id))
  }

  cancel(id: string): void {
    this.#accepted.delete(placeOf(id))
    this.#before.delete(placeOf(id))
  }

  loseSight(caseIndex: number): void {
    this.#unknown.add(caseIndex)
  }

  /** What is stored before the first case is nobody's. */
  async open(redis: Redis): Promise<void> {
    for await (const { place } of stored(redis)) this.#before.add(place)
  }

  async compare(redis: Redis): Promise<{ readonly storedCount: number; readonly faults: readonly Fault[] }> {
    const faults: Fault[] = []
    const missing = new Set(this.#accepted)
    let storedCount = 0
    for await (const { place, blob } of stored(redis)) {
      storedCount += 1
      const text = blob.toString('latin1')
      if (/sm\d+_/.test(text))
        faults.push({ rule: 'nothing smuggled', detail: `${place} holds a smuggled command` })
      if (missing.delete(place) || this.#before.has(place)) continue
      const mark = /fz(\d+)_/.exec(text)?.[1]
      if (mark !== undefined && this.#unknown.has(Number(mark))) continue
      faults.push({
        rule: 'nothing stored that was not accepted',
        detail: `${place}, of case ${mark ?? 'unknown'}`,
      })
    }
    for (const place of missing)
      faults.push({ rule: 'what was accepted is stored', detail: `${place} is not there` })
    return { storedCount, faults }
  }
}

/** An id without its checksum. */
function placeOf(id: string): string {
  return id.split('.').slice(0, 3).join('.')
}

interface Stored {
  readonly place: string
  readonly blob: Buffer
}

/** Commands as they stand in streams and sets of Redis, by `<stream>.<partition>.<token>`. */
async function* stored(redis: Redis): AsyncGenerator<Stored> {
  for (const key of await keysLike(redis, 'mr:{*}:c')) {
    let from = '-'
    for (;;) {
      const page = await redis.xrangeBuffer(key, from, '+', 'COUNT', PAGE_ENTRIES)
      for (const [id, fields] of page)
        yield { place: `${tagOf(key)}.e${id.toString()}`, blob: Buffer.concat(fields) }
      const last = page.at(-1)
      if (last === undefined || page.length < PAGE_ENTRIES) break
      from = `(${last[0].toString()}`
    }
  }
  for (const key of await keysLike(redis, 'mr:{*}:due:b')) {
    for (const [token, blob] of Object.entries(await redis.hgetallBuffer(key)))
      yield { place: `${tagOf(key)}.${token}`, blob }
  }
}

function tagOf(key: string): string {
  return /\{(.*)\}/.exec(key)?.[1] ?? ''
}

async function keysLike(redis: Redis, pattern: string): Promise<string[]> {
  const found: string[] = []
  let cursor = '0'
  do {
    const [next, keys] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', 1000)
    found.push(...keys)
    cursor = next
  } while (cursor !== '0')
  return found.sort()
}
