"""What people's requests say about versions: who is asked, what is counted, how it is told.

Its place in the flow: the front end routes, copies and counts with it; the agent reads the reports
and judges a canary by them. It knows no web framework, no gRPC and no TensorFlow.
"""
