/**
 * Runs something that starts processes, and sees to it that they end: at its end, at the first signal, and at once at the
 * second.
 */
import { RunError } from './failure.ts'

export interface Interruptible {
  /** Answers the exit code. */
  run(): Promise<number>
  /** Lets `run` end soon. */
  interrupt(): void
  /** Ends what was started; safe at any moment, and twice. */
  end(): Promise<void>
  /** For an exit that waits for nothing. */
  abandon(): void
}

/** `bun run` may pass on what the terminal had already sent to all of us: an echo, not a second word. */
const ECHO_MS = 300

/** Answers the exit code of the process. */
export async function runToTheEnd(begin: () => Interruptible, tell: (line: string) => void): Promise<number> {
  try {
    const running = begin()
    listen(running, tell)
    try {
      return await running.run()
    } finally {
      await running.end()
    }
  } catch (error) {
    if (!(error instanceof RunError)) {
      console.error(error)
      return 1
    }
    tell(error.message)
    return error.exitCode
  }
}

function listen(running: Interruptible, tell: (line: string) => void): void {
  let heardAtMs: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (heardAtMs !== undefined && performance.now() - heardAtMs < ECHO_MS) return
      if (heardAtMs !== undefined) {
        running.abandon()
        process.exit(130)
      }
      heardAtMs = performance.now()
      tell(`${signal}, ending what was started; once more to end now`)
      running.interrupt()
    })
  }
}
