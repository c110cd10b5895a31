/** Every scenario, in the order in which they are played. */
import type { Scenario } from './scenario.ts'
import { aggregateView } from './scenarios/aggregate-view.ts'
import { consumeEmit } from './scenarios/consume-emit.ts'
import { consumeNoop } from './scenarios/consume-noop.ts'
import { consumeOrdered } from './scenarios/consume-ordered.ts'
import { endToEnd } from './scenarios/end-to-end.ts'
import { scaleOut } from './scenarios/scale-out.ts'

export const SCENARIOS: readonly Scenario[] = [
  consumeNoop,
  consumeEmit,
  consumeOrdered,
  aggregateView,
  endToEnd,
  scaleOut,
]
