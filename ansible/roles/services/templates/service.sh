# Made by Ansible: virtmgr.core.services. Read by virtmgr-services.
command=({% for word in services_command %}{{ word | quote }}{{ '' if loop.last else ' ' }}{% endfor %})
environment_file={{ services_environment_file | quote }}
once={{ 'yes' if services_once else '' }}
undo=({% for word in services_undo %}{{ word | quote }}{{ '' if loop.last else ' ' }}{% endfor %})
after=({% for name in services_after %}{{ name | quote }}{{ '' if loop.last else ' ' }}{% endfor %})
