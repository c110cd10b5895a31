/** How a replay ends when it can't go on: a sentence for people, and the exit code that tells what kind it is. */

const EXIT_CODES = {
  /** It ran, and something was lost, doubled or different; or the stack misbehaved. */
  failed: 1,
  /** The command line asks for what can't be done (sysexits EX_USAGE is 64; ours is 2, as shells have it). */
  usage: 2,
  /** Something that is needed is missing or does not answer (EX_UNAVAILABLE). */
  unavailable: 69,
  /** What was configured can't work (EX_CONFIG). */
  config: 78,
  interrupted: 130,
} as const

export type FailureKind = keyof typeof EXIT_CODES

export class ReplayError extends Error {
  override readonly name = 'ReplayError'
  readonly exitCode: number

  constructor(kind: FailureKind, sentence: string) {
    super(sentence)
    this.exitCode = EXIT_CODES[kind]
  }
}

/** What a request that got no answer is told as. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (/ECONNREFUSED|ConnectionRefused/.test(`${error.message} ${'code' in error ? error.code : ''}`)) {
    return 'nothing listens there'
  }
  return error.name === 'TimeoutError' ? 'no answer in time' : error.message
}
