/** A scenario: what is promised, at which size, and how it is put to the test. One file below `scenarios/` for each. */
import type { Arena } from './arena.ts'
import type { Size } from './size.ts'

export interface Scenario {
  readonly name: string
  /** One line for `--help` and the report. */
  readonly promise: string
  readonly full: Size
  /** Why it can't run here at all; undefined when it can. */
  readonly skip?: () => Promise<string | undefined>
  /** Brings up what it needs, breaks things, waits for quiet and judges. What breaks a promise is told to the arena. */
  readonly run: (arena: Arena) => Promise<void>
}
