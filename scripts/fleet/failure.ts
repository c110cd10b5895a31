/** How a run of real processes ends when it can't go on: a sentence for people, and the exit code that tells what kind it is. */

const EXIT_CODES = {
  /** It ran, and something was lost, doubled or different; or a process misbehaved. */
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

export class RunError extends Error {
  override readonly name = 'RunError'
  readonly kind: FailureKind

  constructor(kind: FailureKind, sentence: string) {
    super(sentence)
    this.kind = kind
  }

  get exitCode(): number {
    return EXIT_CODES[this.kind]
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
