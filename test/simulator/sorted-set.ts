/** A sorted set of the in-memory Redis, ordered by score and then by the bytes of the member. */
export interface ScoredMember {
  readonly member: string
  readonly score: number
}

export class SortedSet {
  readonly kind = 'zset'
  readonly scores: Map<string, number> = new Map()
  #sorted: ScoredMember[] | undefined

  /** True when the member is new. */
  add(member: string, score: number): boolean {
    const isNew = !this.scores.has(member)
    if (this.scores.get(member) === score) return false
    this.scores.set(member, score)
    this.#sorted = undefined
    return isNew
  }

  remove(member: string): boolean {
    const removed = this.scores.delete(member)
    if (removed) this.#sorted = undefined
    return removed
  }

  get ascending(): readonly ScoredMember[] {
    this.#sorted ??= [...this.scores]
      .map(([member, score]) => ({ member, score }))
      .sort((a, b) => a.score - b.score || (a.member < b.member ? -1 : 1))
    return this.#sorted
  }

  copy(): SortedSet {
    const twin = new SortedSet()
    for (const [member, score] of this.scores) twin.scores.set(member, score)
    return twin
  }
}
