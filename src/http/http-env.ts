/** What a route sees of the server beneath it: enough to ask for more time, and who asks. Absent when an app is called without a server. */
import type { Principal } from '../contracts/principal.ts'

export interface HttpEnv {
  readonly Bindings: {
    /** Of Bun.serve: how long this request may stay silent, in seconds; 0 for ever. */
    timeout?(request: Request, seconds: number): void
    /** Absent where nobody needs a credential. */
    readonly principal?: Principal
  }
}

/** The bindings of one request whose sender is known. */
export function bindingsFor(
  server: HttpEnv['Bindings'] | undefined,
  principal: Principal,
): HttpEnv['Bindings'] {
  return { timeout: (request, seconds) => server?.timeout?.(request, seconds), principal }
}
