/**
 * Many submissions of which some could not even be read: those that could go to the bus, and every one has its fate in its
 * place.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { SubmitOutcome } from '../contracts/producer.ts'
import type { CommandBus } from './command-bus.ts'
import type { Submission } from './submission.ts'

/** An error stands in for one that could not be read. */
export type MaybeSubmission = Submission | MillraceError

/** @throws MillraceError what `CommandBus.submitMany` throws */
export async function submitReadable(
  bus: CommandBus,
  items: readonly MaybeSubmission[],
  { atomic }: { readonly atomic: boolean },
): Promise<SubmitOutcome[]> {
  const readable: Submission[] = []
  for (const item of items) if (!isRefusal(item)) readable.push(item)
  if (readable.length === items.length) return await bus.submitMany(readable, { atomic })
  const outcomes = atomic ? readable.map(() => HELD_BACK) : await bus.submitMany(readable)
  let at = 0
  return items.map((item) => {
    if (isRefusal(item)) return { accepted: undefined, error: item }
    return outcomes[at++] ?? HELD_BACK
  })
}

export function isRefusal(item: MaybeSubmission): item is MillraceError {
  return 'code' in item
}

const HELD_BACK: SubmitOutcome = {
  accepted: undefined,
  error: new MillraceError(
    'command.invalid',
    'Nothing was stored: another command of this all-or-none request was refused.',
  ),
}
