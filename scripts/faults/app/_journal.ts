/**
 * The journal that handlers write: every call, before it runs and again before it answers.
 *
 * One file a process, appended to with one write for a whole batch, so that a SIGKILL loses nothing that was written and
 * a handler never runs unwritten. The harness says where by `FAULTS_JOURNAL` and `FAULTS_PROCESS`.
 */
import { openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { HandledCommand, Outcome } from 'millrace'
import {
  JOURNAL_RECORD_BYTES,
  KIND_END,
  KIND_START,
  OUTCOME_DONE,
  OUTCOME_NONE,
  OUTCOME_REJECT,
  OUTCOME_RETRY,
  STREAM_NAMES,
  tokenNumber,
  writeRecord,
} from '../journal-format.ts'

/** What every payload of the harness says: its row, the number of its key, its place within the key. */
export interface Numbered {
  readonly n: number
  readonly k: number
  readonly s: number
}

type Command = HandledCommand<Numbered>
type Handle<Given extends Command> = (
  batch: readonly Given[],
) => readonly Outcome[] | Promise<readonly Outcome[]>

const OUTCOMES = { done: OUTCOME_DONE, retry: OUTCOME_RETRY, reject: OUTCOME_REJECT } as const
const baseMs = Number(process.env['FAULTS_BASE_MS'] ?? 0)

let file: number | undefined
let batches = 0

/** A batch handler whose calls are written down. `numbersOf` says which row a command is, where its payload does not. */
export function journaled<Given extends Command>(
  handle: Handle<Given>,
  numbersOf: (command: Command) => Numbered = ({ payload }) => payload,
): Handle<Given> {
  return async (batch) => {
    batches += 1
    const number = batches
    append(batch, { number, kind: KIND_START, outcomes: [], numbersOf })
    const outcomes = await handle(batch)
    append(batch, { number, kind: KIND_END, outcomes, numbersOf })
    return outcomes
  }
}

interface Page {
  readonly number: number
  readonly kind: number
  readonly outcomes: readonly Outcome[]
  readonly numbersOf: (command: Command) => Numbered
}

function append(batch: readonly Command[], { number, kind, outcomes, numbersOf }: Page): void {
  const bytes = Buffer.alloc(batch.length * JOURNAL_RECORD_BYTES)
  const [monotonicMs, wallMs] = [performance.timeOrigin + performance.now(), Date.now()]
  let at = 0
  for (const [i, command] of batch.entries()) {
    const [stream = '', partition = '', token = ''] = command.id.split('.', 3)
    const { n: row, k: key, s: sequence } = numbersOf(command)
    const outcome = outcomes[i]
    at = writeRecord(bytes, at, {
      ...{ kind, row, key, sequence, monotonicMs, wallMs, batch: number, attempt: command.attempt },
      outcome: outcome === undefined ? OUTCOME_NONE : OUTCOMES[outcome.outcome],
      stream: STREAM_NAMES.indexOf(stream as (typeof STREAM_NAMES)[number]),
      partition: Number(partition),
      token: tokenNumber(token, baseMs),
    })
  }
  file ??= open()
  writeSync(file, bytes)
}

function open(): number {
  const [folder, name] = [process.env['FAULTS_JOURNAL'], process.env['FAULTS_PROCESS']]
  if (folder === undefined || name === undefined) {
    throw new Error(
      'These handlers write a journal: set FAULTS_JOURNAL to a folder and FAULTS_PROCESS to a name.',
    )
  }
  return openSync(join(folder, `${name}.journal`), 'a', 0o600)
}
