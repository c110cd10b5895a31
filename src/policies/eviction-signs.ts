/**
 * Signs that a server evicts keys, from one look to the next: a policy that was set behind our back, keys that are gone.
 *
 * A policy that the first look finds was accepted at the start, by name; keys that go are loss whoever accepted it.
 */
export interface EvictionLook {
  readonly evictionPolicy: string
  /** Since the server started. */
  readonly evictedKeys: number
}

const SAFE = 'noeviction'

export class EvictionSigns {
  #last: EvictionLook | undefined

  /** What a person must see, as a sentence each; nothing twice. */
  observe(look: EvictionLook): string[] {
    const last = this.#last
    this.#last = look
    if (last === undefined) return []
    const signs: string[] = []
    const { evictionPolicy: policy, evictedKeys } = look
    if (policy !== last.evictionPolicy && policy !== SAFE && policy !== '') {
      signs.push(
        `Redis may evict whole streams from now on: maxmemory-policy was changed to ${policy}. Set it back to ${SAFE}.`,
      )
    }
    const gone = evictedKeys - last.evictedKeys
    if (gone > 0) {
      signs.push(
        `Redis evicted ${gone} keys: streams, records or views may be among them. Set maxmemory-policy ${SAFE}, and give it more memory.`,
      )
    }
    return signs
  }
}
