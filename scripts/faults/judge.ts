/** The promises that every scenario is held to, and how an account is judged by them. */
import type { Account, Arena } from './arena.ts'

export interface Expectations {
  /** Handler calls beyond the first that faults may have caused. Undefined: not judged. */
  readonly duplicateCallsMax?: number
  /** Loss is counted, and judged by the scenario itself. */
  readonly lossAllowed?: boolean
  /** Some rows may have been refused for good. */
  readonly refusalAllowed?: boolean
  /** Views belong to tenants, and none is compared. */
  readonly viewsApart?: boolean
}

export function judge(arena: Arena, account: Account, expectations: Expectations = {}): void {
  const { effects, calls, pending, leaked } = account
  const { ledger, workload } = arena
  const lost = effects.lostRows.length + effects.lostEchoes
  arena.check(
    ledger.acceptedCount === workload.rows ||
      (expectations.refusalAllowed === true && ledger.acceptedCount > 0),
    `${ledger.acceptedCount} of ${workload.rows} commands were accepted`,
  )
  arena.check(calls.calls > 0, 'no handler call was written down: nothing was tested')
  arena.check(effects.events > 0, 'Redis holds no event: nothing was tested')
  if (expectations.lossAllowed !== true) {
    arena.check(
      lost === 0,
      `${lost} lost (${effects.lostEchoes} of them follow-ups), such as rows ${some(effects.lostRows)}`,
    )
  }
  arena.check(effects.duplicates === 0, `${effects.duplicates} effects more than one each`)
  arena.check(pending === 0, `${pending} entries are pending after the quiet period`)
  const innocent = effects.dead.filter(({ row }) => !arena.expectedDead(row))
  arena.check(
    innocent.length === 0,
    `${innocent.length} dead letters that should not be: ${reasons(innocent)}`,
  )
  arena.check(
    account.viewsDifferent === 0,
    `${account.viewsDifferent} of ${account.viewsCompared} views differ from their events`,
  )
  arena.check(account.viewsCompared > 0 || expectations.viewsApart === true, 'no view was compared')
  if (leaked !== undefined) {
    arena.check(
      leaked.length === 0,
      `${leaked.length} consumers of dead workers are left: ${leaked.slice(0, 5).join(' ')}`,
    )
  }
  const { duplicateCallsMax } = expectations
  if (duplicateCallsMax !== undefined) {
    const sentence = `${calls.duplicates} handler calls were repeated, at most ${duplicateCallsMax} could be explained`
    arena.check(calls.duplicates <= duplicateCallsMax, sentence)
  }
}

function some(rows: readonly number[]): string {
  return rows.slice(0, 5).join(', ')
}

function reasons(letters: readonly { readonly row: number; readonly error: string }[]): string {
  return letters
    .slice(0, 3)
    .map(({ row, error }) => `row ${row}: ${error}`)
    .join('; ')
}
