/** What the fuzzed process knows before the first case: ids, cursors, tags and names that are true. */
export interface Ground {
  readonly publicPort: number
  readonly adminPort: number
  /** Of commands that are done, dead, cancelled, or wait for their time. */
  readonly ended: readonly string[]
  readonly dead: readonly string[]
  readonly waiting: readonly string[]
  /** Waits for its time, and would change a view. */
  readonly behind: string
  /** Ids of API keys. */
  readonly keys: readonly string[]
  readonly viewKeys: readonly string[]
  readonly viewCursor: string
  readonly deadCursor: string
  readonly operations: readonly string[]
}
