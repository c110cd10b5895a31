/** What every script of this folder begins with: its one argument, and how it tells what it found. */

/** The argument, as its caller wrote it. */
export function input<Input>(): Input {
  return JSON.parse(process.argv[2] ?? '{}') as Input
}

/** It can be measured from now on. */
export function tellReady(facts: object): void {
  process.stdout.write(`${JSON.stringify({ ready: facts })}\n`)
}

export function tellResult(facts: object): void {
  process.stdout.write(`${JSON.stringify({ result: facts })}\n`)
}
