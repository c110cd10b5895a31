/**
 * Many submissions of which some could not even be read: those that could go to the bus, and every one has its fate in its
 * place.
 */
import type { MillraceError } from '../contracts/errors.ts'
import type { SubmitOutcome } from '../contracts/producer.ts'
import type { Tenant } from '../contracts/tenant.ts'
import { refusalOfAppend } from './append-refusals.ts'
import type { CommandBus } from './command-bus.ts'
import type { Submission } from './submission.ts'

/** An error stands in for one that could not be read. */
export type MaybeSubmission = Submission | MillraceError

/** @throws MillraceError what `CommandBus.submitMany` throws */
export async function submitReadable(
  bus: CommandBus,
  items: readonly MaybeSubmission[],
  { atomic, tenant }: { readonly atomic: boolean; readonly tenant?: Tenant },
): Promise<SubmitOutcome[]> {
  const readable: Submission[] = []
  for (const item of items) if (!isRefusal(item)) readable.push(item)
  if (readable.length === items.length) return await bus.submitMany(readable, { atomic, tenant })
  const outcomes = atomic ? readable.map(() => NOT_LOOKED_AT) : await bus.submitMany(readable, { tenant })
  let at = 0
  return items.map((item) => {
    if (isRefusal(item)) return { accepted: undefined, error: item }
    return outcomes[at++] ?? NOT_LOOKED_AT
  })
}

export function isRefusal(item: MaybeSubmission): item is MillraceError {
  return 'code' in item
}

const NOT_LOOKED_AT: SubmitOutcome = { accepted: undefined, error: refusalOfAppend('held-back') }
