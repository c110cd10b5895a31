/** Every scenario, in the order in which they are played. */
import type { Scenario } from './scenario.ts'
import { backlog } from './scenarios/backlog.ts'
import { consumeEmit } from './scenarios/consume-emit.ts'
import { consumeNoop } from './scenarios/consume-noop.ts'
import { consumeOrdered } from './scenarios/consume-ordered.ts'
import { memory } from './scenarios/memory.ts'
import { scaleOut } from './scenarios/scale-out.ts'

export const SCENARIOS: readonly Scenario[] = [
  consumeNoop,
  consumeEmit,
  consumeOrdered,
  scaleOut,
  backlog,
  memory,
]
