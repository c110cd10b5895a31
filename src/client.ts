/** Public entry `millrace/client`: sending commands to a Millrace API from Bun, Node or a browser. Nothing of the server is in it. */
export type {
  AnyCommands,
  CallOptions,
  Client,
  ClientAccepted,
  ClientSending,
  ClientSendOptions,
  ClientView,
  ClientViewPage,
  CommandsOf,
  SendAnswer,
  SendOutcome,
  ViewPageOptions,
  ViewReadOptions,
  WaitingOptions,
} from './client/client.ts'
export {
  ClientError,
  type ClientErrorCode,
  type ClientErrorDetails,
  type ClientProblem,
  clientErrorCode,
} from './client/client-error.ts'
export type { ClientBounds, ClientOptions, Fetch, TokenSource } from './client/client-options.ts'
export { createClient } from './client/create-client.ts'
export type {
  CommandSituation,
  CommandStanding,
  SendingOptions,
} from './contracts/producer.ts'
