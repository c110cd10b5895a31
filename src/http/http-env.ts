/** What a route sees of the server beneath it: enough to ask for more time. Absent when an app is called without a server. */
export interface HttpEnv {
  readonly Bindings: {
    /** Of Bun.serve: how long this request may stay silent, in seconds; 0 for ever. */
    timeout?(request: Request, seconds: number): void
  }
}
