/** All mutants. A new one goes to the mechanism that it breaks. */
import { ENTERING_MUTANTS } from './entering.ts'
import { IDENTIFYING_MUTANTS } from './identifying.ts'
import { LIMITING_MUTANTS } from './limiting.ts'
import type { Mutant } from './mutant.ts'
import { ORDERING_MUTANTS } from './ordering.ts'
import { READING_MUTANTS } from './reading.ts'
import { RECOVERING_MUTANTS } from './recovering.ts'
import { SETTLING_MUTANTS } from './settling.ts'
import { VIEWING_MUTANTS } from './viewing.ts'

export const MUTANTS: readonly Mutant[] = [
  ...IDENTIFYING_MUTANTS,
  ...ENTERING_MUTANTS,
  ...LIMITING_MUTANTS,
  ...SETTLING_MUTANTS,
  ...READING_MUTANTS,
  ...RECOVERING_MUTANTS,
  ...ORDERING_MUTANTS,
  ...VIEWING_MUTANTS,
]
